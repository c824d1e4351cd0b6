#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: write at or past the capacity" "$@"

mount_zonefs || exit_failed "mount"
fill seq/0 && write_seq seq/1 0 4096 || exit_failed "write"
before=$(snapshot)
for file in "$SEQ0" "$MNT/seq/1" "$MNT/seq/2"; do
	zio "open $file wronly,direct" "!EFBIG pwrite $CAP $BS" "!EFBIG pwrite $((CAP + 4096)) 4096" "!EFBIG pwrite $((CAP + 1)) 100" \
		"!EFBIG pwrite 0x4000000000000000 4096" "!EINVAL pwrite -4096 4096" || exit_failed "$file"
done
zio "open $SEQ0 wronly,direct" "!EINVAL pwrite 0 4096" "!EINVAL pwrite $((CAP - 4096)) 4096" || exit_failed "inside a full zone"
expect_unchanged "$before" || exit_failed "something changed"
fs_is_writable || exit_failed "the file system went read-only"

pass
