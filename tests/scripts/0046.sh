#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Inode numbers (aggr_cnv)" "$@"

require_cnv_files
format_device -o aggr_cnv || exit_failed "mkfs"
mount_zonefs || exit_failed "mount"
[[ $(stat --format=%i "$MNT" "$MNT/cnv" "$MNT/seq" "$CNV0" "$SEQ0" | xargs) == \
	"$ZONES $((ZONES + 1)) $((ZONES + 2)) 1 $FIRST_SEQ" ]] || exit_failed "inode numbers"

pass
