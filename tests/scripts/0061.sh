#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Owner of files (mkfs -o uid,gid)" "$@"

format_device -o uid=1000,gid=2000 || exit_failed "mkfs"
mount_zonefs || exit_failed "mount"
[[ $(find "$MNT" -type f -printf '%U %G\n' | sort --unique) == "1000 2000" ]] || exit_failed "files"
[[ $(find "$MNT" -type d -printf '%U %G\n' | sort --unique) == "0 0" ]] || exit_failed "directories"
zio "user 1000 1000" "open $SEQ0 rdwr,direct" "=4096 pwrite 0 4096" "verify 0 4096" || exit_failed "the owner's write"
zio "user 3000 2000" "open $SEQ0 rdonly" "verify 0 4096" "!EACCES open $SEQ0 wronly" || exit_failed "the group's read"

pass
