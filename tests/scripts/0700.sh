#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "copy_file_range between sequential files" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 $((3 * 65536)) || exit_failed "write"
zio "open $SEQ0 rdonly" "open $MNT/seq/1 rdwr,direct" "=65536 copy 0 65536 0 65536" "verify 0 65536 at=65536" "=65536 copy 0 0 65536 65536" \
	"verify 65536 65536 at=0" "@0 lseek 131072" "lseek 131072" "=65536 copy 0 - - 65536" "=196608 lseek 0 cur" "@0 =196608 lseek 0 cur" \
	"verify 131072 65536 at=131072" || exit_failed "copy"
expect_size seq/1 $((3 * 65536)) || exit_failed "size"
zio "open $SEQ0 rdonly" "open $MNT/seq/1 rdwr,direct" "=0 copy 0 196608 196608 4096" "=0 copy 0 0 196608 0" "=4096 copy 0 192512 196608 65536" ||
	exit_failed "end of the source"
fill seq/2 || exit_failed "fill"
zio "open $MNT/seq/2 rdonly" "open $MNT/seq/3 rdwr,direct" "=$CAP copy 0 0 0 $CAP" "verify 0 $CAP" || exit_failed "whole zone"

pass
