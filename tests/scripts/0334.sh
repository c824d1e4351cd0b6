#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: O_TRUNC" "$@"

mount_zonefs || exit_failed "mount"
for flags in wronly rdwr rdonly wronly,direct,append rdwr,creat; do
	write_seq seq/0 0 8192 || exit_failed "write"
	zio "open $SEQ0 $flags,trunc" "=0 size" || exit_failed "$flags,trunc"
	expect_size seq/0 0 || exit_failed "size after $flags,trunc"
done
fill seq/0 || exit_failed "fill"
zio "open $SEQ0 rdwr,direct,trunc" "=4096 pwrite 0 4096 seed=2" "verify 0 4096 seed=2" || exit_failed "write to a file that was full"
expect_size seq/0 4096 || exit_failed "size"

pass
