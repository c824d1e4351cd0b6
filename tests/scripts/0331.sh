#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: truncate a partly written file" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 && write_seq seq/1 0 8192 || exit_failed "write"
before=$(snapshot)
for size in 1 4096 8191 8192 8193 $((8192 + BS)) $((CAP - 1)); do
	zio "!EPERM truncate $SEQ0 $size" "open $SEQ0 wronly" "!EPERM ftruncate $size" || exit_failed "to $size"
done
expect_unchanged "$before" || exit_failed "something changed"
zio "truncate $SEQ0 0" && expect_size seq/0 0 || exit_failed "to 0"
zio "truncate $MNT/seq/1 $CAP" && expect_size seq/1 "$CAP" || exit_failed "to the capacity"
verify_file seq/1 0 8192 || exit_failed "data"
expect_conditions "empty full" seq/0 seq/1 || exit_failed "conditions"
write_seq seq/0 0 4096 seed=2 && verify_file seq/0 0 4096 seed=2 || exit_failed "write after the reset"

pass
