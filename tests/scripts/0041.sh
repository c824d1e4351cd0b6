#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Number of files (aggr_cnv)" "$@"

format_device -o aggr_cnv || exit_failed "mkfs"
mount_zonefs || exit_failed "mount"
[[ $(find "$MNT/seq" -type f | wc --lines) == "$NR_SEQ" ]] || exit_failed "files in seq"
if ((NR_CNV)); then
	[[ $(ls "$MNT/cnv") == 0 ]] || exit_failed "files in cnv"
else
	zio "!ENOENT open $MNT/cnv rdonly" || exit_failed "cnv without files"
fi

pass
