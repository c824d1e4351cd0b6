#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "chmod of files" "$@"

mount_zonefs || exit_failed "mount"
for mode in 0 400 4755 2644 1777 640; do
	zio "chmod $SEQ0 $mode" && [[ $(mode_of seq/0) == "$mode" ]] || exit_failed "chmod $mode"
done
zio "chmod $SEQ0 400" || exit_failed "chmod"
[[ $(mode_of seq/1) == 640 ]] || exit_failed "another file changed"
echo 2 >/proc/sys/vm/drop_caches
[[ $(mode_of seq/0) == 400 ]] || exit_failed "lost with the caches"
mount_again || exit_failed "mount again"
[[ $(mode_of seq/0) == 640 ]] || exit_failed "kept over umount"

pass
