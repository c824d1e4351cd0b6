#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: truncate an empty file" "$@"

mount_zonefs || exit_failed "mount"
zio "truncate $SEQ0 0" "open $SEQ0 wronly" "ftruncate 0" || exit_failed "to 0"
for size in 1 "$BS" 4096 $((CAP - BS)) $((CAP - 1)); do
	zio "!EPERM truncate $SEQ0 $size" || exit_failed "to $size"
done
expect_size seq/0 0 || exit_failed "size changed"
zio "truncate $SEQ0 $CAP" || exit_failed "to the capacity"
expect_size seq/0 "$CAP" || exit_failed "size"
expect_conditions "full empty" seq/0 seq/1 || exit_failed "conditions"

pass
