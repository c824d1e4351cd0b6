#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "splice" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 65536 || exit_failed "write"
zio "open $SEQ0 rdonly" "open $MNT/seq/1 rdwr,direct" "=65536 splice 0 0 0 65536" "verify 0 65536" "=8192 splice 0 4096 65536 8192" \
	"verify 65536 8192 at=4096" || exit_failed "seq to seq"
expect_size seq/1 73728 || exit_failed "size"
before=$(snapshot)
zio "open $SEQ0 rdonly" "open $MNT/seq/1 wronly,direct" "!EINVAL splice 0 0 0 4096" "!EINVAL splice 0 0 73728 100" "open $MNT/seq/1 wronly" \
	"!EIO splice 0 0 73728 4096" "open $MNT/seq/1 wronly,direct,append" "!EINVAL splice 0 0 - 4096" || exit_failed "refusals"
expect_unchanged "$before" || exit_failed "something changed"
fs_is_writable || exit_failed "the file system went read-only"

pass
