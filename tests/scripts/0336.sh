#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: data and size survive umount" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 12288 && fill seq/1 && write_seq seq/2 0 "$BS" seed=2 || exit_failed "write"
zio "open $MNT/seq/3 wronly,direct" "=8192 pwrite 0 8192 seed=3" fsync || exit_failed "write with fsync"
for _ in 1 2; do
	mount_again || exit_failed "mount again"
	expect_size seq/0 12288 && expect_size seq/1 "$CAP" && expect_size seq/2 "$BS" && expect_size seq/3 8192 || exit_failed "sizes"
	verify_file seq/0 0 12288 && verify_file seq/1 0 "$CAP" && verify_file seq/2 0 "$BS" seed=2 && verify_file seq/3 0 8192 seed=3 ||
		exit_failed "data"
done
write_seq seq/0 12288 4096 && verify_file seq/0 0 16384 || exit_failed "write on"

pass
