#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "copy_file_range: refusals" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 16384 && write_seq seq/1 0 4096 && fill seq/2 || exit_failed "write"
head --bytes=16384 /dev/urandom >"$TEST_DIR/other"
before=$(snapshot)
zio "open $SEQ0 rdonly" "open $MNT/seq/1 wronly,direct" "!EINVAL copy 0 0 0 4096" "!EINVAL copy 0 0 8192 4096" "!EFBIG copy 0 0 $CAP 4096" \
	"!EINVAL copy 0 0 4096 4096 flags=1" "@0 !EBADF copy 1 0 0 4096" "open $MNT/seq/1 wronly,direct,append" "!EBADF copy 0 0 4096 4096" \
	"open $MNT/seq/2 wronly,direct" "!EFBIG copy 0 0 $CAP 4096" "open $MNT/seq rdonly" "!EISDIR copy 0 0 0 4096" || exit_failed "refusals"
zio "open $TEST_DIR/other rdwr" "open $MNT/seq/1 rdwr,direct" "!EXDEV copy 0 0 4096 4096" "@0 !EXDEV copy 1 0 0 4096" || exit_failed "other file system"
zio "open $SEQ0 rdwr,direct" "!EINVAL copy 0 0 4096 8192" || exit_failed "overlap"
expect_unchanged "$before" || exit_failed "something changed"
fs_is_writable || exit_failed "the file system went read-only"
zio "open $SEQ0 rdwr,direct" "=8192 copy 0 0 16384 8192" "verify 0 16384" "verify 16384 8192 at=0" || exit_failed "append to itself"

pass
