#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Times of a fresh mount" "$@"

started=$(date +%s%N)
mount_zonefs || exit_failed "mount"
read -r atime mtime ctime < <(zio "times $MNT")
# The clock of file times may lie one tick behind.
((atime == mtime && mtime == ctime && ctime >= started - 20000000 && ctime <= $(date +%s%N))) || exit_failed "root's times"
for path in "$MNT/seq" "$SEQ0" "$MNT/seq/$((NR_SEQ - 1))"; do
	[[ $(zio "times $path") == "$ctime $ctime $ctime" ]] || exit_failed "times of $path"
done

pass
