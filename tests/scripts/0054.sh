#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Permissions are enforced for users" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 4096 || exit_failed "write"
before=$(snapshot)
zio "user 1000 1000" "!EACCES open $SEQ0 rdonly" "!EACCES open $SEQ0 wronly,direct" "!EACCES truncate $SEQ0 0" \
	"!EACCES touchnow $SEQ0" "!EPERM utime $SEQ0 0 0" "!EPERM chmod $SEQ0 666" "!EPERM chown $SEQ0 1000 1000" \
	"open $MNT/seq rdonly,directory" getdents || exit_failed "uid 1000 gid 1000"
zio "user 1000 0" "open $SEQ0 rdonly" "verify 0 4096" "!EACCES open $SEQ0 wronly,direct" "!EACCES truncate $SEQ0 0" ||
	exit_failed "uid 1000 gid 0"
expect_unchanged "$before" || exit_failed "something changed"

pass
