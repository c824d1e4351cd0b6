#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: truncate (aggr_cnv)" "$@"

require_cnv_files
format_device -o aggr_cnv || exit_failed "mkfs"
mount_zonefs || exit_failed "mount"
size=$((NR_CNV * ZONE_SIZE))
before=$(snapshot)
zio "!EPERM truncate $CNV0 0" "!EPERM truncate $CNV0 $ZONE_SIZE" "!EPERM truncate $CNV0 $size" "!EFBIG truncate $CNV0 $((size + 1))" \
	"!EPERM open $CNV0 wronly,trunc" || exit_failed "truncate"
# The largest file of the file system decides what is too big for any of them.
zio "!EPERM truncate $SEQ0 $size" "!EFBIG truncate $SEQ0 $((size + 1))" || exit_failed "truncate of a sequential file"
expect_unchanged "$before" || exit_failed "something changed"

pass
