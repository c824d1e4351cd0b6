#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: buffered writes are refused" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 && fill seq/1 || exit_failed "write"
before=$(snapshot)
for access in wronly rdwr; do
	zio "open $SEQ0 $access" "!EIO pwrite 8192 4096" "!EIO pwrite 0 4096" "!EIO pwrite 8192 1" "!EIO pwrite 8193 100" \
		"!EIO pwrite $((CAP - 1)) 4096" "!EFBIG pwrite $CAP 4096" "!EFBIG pwrite $((CAP + 100)) 1" "open $SEQ0 $access,append" \
		"!EIO write 4096 at=0" || exit_failed "$access"
done
zio "open $MNT/seq/1 wronly" "!EIO pwrite 0 4096" "!EFBIG pwrite $CAP 4096" || exit_failed "full zone"
expect_unchanged "$before" || exit_failed "something changed"
fs_is_writable || exit_failed "the file system went read-only"

pass
