#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mkfs: superblock (aggr_cnv)" "$@"

format_device -o aggr_cnv || exit_failed "mkfs"
zio "=good sb $SB_FILE crc" "=1 sb $SB_FILE features" "=zero sb $SB_FILE reserved" || exit_failed "superblock"
[[ $(zonefs_py info "$DEV" --format json | json format aggr_cnv) == true ]] || exit_failed "info"

pass
