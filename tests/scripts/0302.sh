#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: write that is not aligned" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
before=$(snapshot)
for length in 1 100 $((BS - 1)) $((BS + 1)) $((BS + 100)) $((4 * BS + 256)); do
	zio "open $SEQ0 wronly,direct" "!EINVAL pwrite 8192 $length" || exit_failed "length $length"
done
for offset in 8191 8193 8292 $((8192 + BS - 1)); do
	zio "open $SEQ0 wronly,direct" "!EINVAL pwrite $offset $BS" || exit_failed "offset $offset"
done
expect_unchanged "$before" || exit_failed "something changed"
fs_is_writable || exit_failed "the file system went read-only"

pass
