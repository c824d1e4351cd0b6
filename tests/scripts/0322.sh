#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: unwritten part of a finished zone" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
zio "truncate $SEQ0 $CAP" "open $SEQ0 rdonly" "verify 0 8192" "zeros 8192 $((CAP - 8192))" "=0 pread $CAP 4096" "open $SEQ0 rdonly,direct" \
	"verify 0 8192" "zeros 8192 $((CAP - 8192))" || exit_failed "read"
zio "truncate $MNT/seq/1 $CAP" "open $MNT/seq/1 rdonly" "zeros 0 $CAP" || exit_failed "zone that was empty"
# What was there before the reset must not come back.
zio "truncate $SEQ0 0" "truncate $SEQ0 $CAP" "open $SEQ0 rdonly" "zeros 0 $CAP" || exit_failed "old data shows"

pass
