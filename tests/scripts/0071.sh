#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Size of the conventional file (aggr_cnv)" "$@"

require_cnv_files
format_device -o aggr_cnv || exit_failed "mkfs"
mount_zonefs || exit_failed "mount"
[[ $(stat --format='%s %b' "$CNV0") == "$((NR_CNV * ZONE_SIZE)) $((NR_CNV * ZONE_SIZE / 512))" ]] || exit_failed "size"
[[ $(stat --format='%s' "$MNT/cnv") == 1 ]] || exit_failed "size of cnv"

pass
