#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: write elsewhere" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 16384 || exit_failed "write"
before=$(snapshot)
for offset in 0 4096 $((16384 - BS)) $((16384 + BS)) $((CAP - 4096)); do
	zio "open $SEQ0 wronly,direct" "!EINVAL pwrite $offset 4096" "!EINVAL pwrite $offset 8192" || exit_failed "at $offset"
done
zio "open $MNT/seq/1 wronly,direct" "!EINVAL pwrite $BS $BS" || exit_failed "empty zone"
expect_unchanged "$before" || exit_failed "something changed"
fs_is_writable || exit_failed "the file system went read-only"
verify_file seq/0 0 16384 || exit_failed "data"

pass
