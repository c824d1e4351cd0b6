#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Removing names is refused" "$@"

mount_zonefs || exit_failed "mount"
before=$(snapshot)
zio "!EPERM unlink $SEQ0" "!EISDIR unlink $MNT/seq" "!ENOENT unlink $MNT/seq/new" "!EPERM rmdir $MNT/seq" "!ENOTDIR rmdir $SEQ0" \
	"!EBUSY rmdir $MNT" "!ENOENT rmdir $MNT/new" || exit_failed "as root"
zio "user 1000 1000" "!EACCES unlink $SEQ0" "!EACCES rmdir $MNT/seq" || exit_failed "as a user"
expect_unchanged "$before" || exit_failed "something changed"

pass
