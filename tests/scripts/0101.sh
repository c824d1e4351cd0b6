#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Setting times" "$@"

mount_zonefs || exit_failed "mount"
for path in "$SEQ0" "$MNT/seq" "$MNT"; do
	for times in "1000000001 2000000002" "-3600000000000 -1000000000" "16725225600123456789 16725225600987654321"; do
		zio "utime $path $times" || exit_failed "utime $path $times"
		read -r atime mtime ctime < <(zio "times $path")
		[[ "$atime $mtime" == "$times" ]] || exit_failed "times of $path: $atime $mtime, not $times"
		((ctime > $(date +%s%N) - 10000000000)) || exit_failed "ctime"
	done
done
zio "touchnow $SEQ0" || exit_failed "utime with the present time"
read -r atime mtime ctime < <(zio "times $SEQ0")
((mtime > $(date +%s%N) - 10000000000)) || exit_failed "mtime is not now"
mount_again || exit_failed "mount again"
read -r atime mtime ctime < <(zio "times $MNT/seq")
((mtime > $(date +%s%N) - 60000000000)) || exit_failed "times are kept over umount"

pass
