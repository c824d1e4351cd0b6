#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Reading moves the access time" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 4096 || exit_failed "write"
# relatime: an access time that is older than the modification time is moved.
zio "utime $SEQ0 1000000000 2000000000" || exit_failed "utime"
verify_file seq/0 0 4096 || exit_failed "read"
read -r atime mtime ctime < <(zio "times $SEQ0")
((mtime == 2000000000)) || exit_failed "mtime moved"
((atime > ctime - 10000000000)) || exit_failed "atime is still $atime"

pass
