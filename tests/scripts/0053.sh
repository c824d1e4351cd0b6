#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "chmod and chown of directories" "$@"

mount_zonefs || exit_failed "mount"
for dir in "$MNT" "$MNT/seq"; do
	for mode in 755 775 557 200; do
		zio "!EPERM chmod $dir $mode" || exit_failed "chmod $mode $dir"
	done
	[[ $(stat --format=%a "$dir") == 555 ]] || exit_failed "mode changed"
	zio "chmod $dir 500" "chmod $dir 0" || exit_failed "chmod without a write bit"
	[[ $(stat --format=%a "$dir") == 0 ]] || exit_failed "mode"
	zio "chmod $dir 555" "chown $dir 1000 2000" || exit_failed "chown"
	[[ $(stat --format='%a %u %g' "$dir") == "555 1000 2000" ]] || exit_failed "owner of $dir"
done
mount_again || exit_failed "mount again"
[[ $(stat --format='%a %u %g' "$MNT/seq") == "555 0 0" ]] || exit_failed "kept over umount"

pass
