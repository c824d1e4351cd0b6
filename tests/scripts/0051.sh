#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Permissions of files (mkfs -o perm)" "$@"

for perm in 0 600 777; do
	format_device -o "perm=$perm" || exit_failed "mkfs"
	mount_zonefs || exit_failed "mount"
	[[ $(find "$MNT" -type f -printf '%m\n' | sort --unique) == "$perm" ]] || exit_failed "mode of files"
	[[ $(find "$MNT" -type d -printf '%m %u %g\n' | sort --unique) == "555 root root" ]] || exit_failed "directories"
	unmount_zonefs || exit_failed "umount"
done

pass
