#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: truncate a full file" "$@"

mount_zonefs || exit_failed "mount"
fill seq/0 || exit_failed "write"
before=$(snapshot)
for size in 1 4096 $((CAP - BS)) $((CAP - 1)); do
	zio "!EPERM truncate $SEQ0 $size" || exit_failed "to $size"
done
zio "truncate $SEQ0 $CAP" || exit_failed "to the capacity"
expect_unchanged "$before" || exit_failed "something changed"
verify_file seq/0 0 "$CAP" || exit_failed "data"
zio "truncate $SEQ0 0" && expect_size seq/0 0 || exit_failed "to 0"
write_seq seq/0 0 4096 || exit_failed "write after the reset"

pass
