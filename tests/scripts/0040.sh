#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Number of files" "$@"

mount_zonefs || exit_failed "mount"
[[ $(find "$MNT/seq" -type f | wc --lines) == "$NR_SEQ" ]] || exit_failed "files in seq"
if ((NR_CNV)); then
	[[ $(find "$MNT/cnv" -type f | wc --lines) == "$NR_CNV" ]] || exit_failed "files in cnv"
else
	zio "!ENOENT open $MNT/cnv rdonly" || exit_failed "cnv without files"
fi
[[ $(find "$MNT" -mindepth 1 -maxdepth 1 | wc --lines) == $((NR_CNV ? 2 : 1)) ]] || exit_failed "entries of the root"

pass
