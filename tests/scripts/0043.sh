#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Block and file counts of statfs (aggr_cnv)" "$@"

require_cnv_files
format_device -o aggr_cnv || exit_failed "mkfs"
mount_zonefs || exit_failed "mount"
expect_statfs $((NR_CNV * ZONE_SIZE + NR_SEQ * CAP)) $((NR_SEQ * CAP)) $((1 + NR_SEQ + 2)) || exit_failed "statfs"

pass
