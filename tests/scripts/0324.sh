#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: lseek" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
zio "open $SEQ0 rdonly" "=8192 lseek 0 end" "=4096 lseek 4096" "=4196 lseek 100 cur" "=8092 lseek -100 end" "!EINVAL lseek -1" \
	"!EINVAL lseek -8193 end" "!EINVAL lseek 0 9" "=0 lseek -8092 cur" || exit_failed "inside"
# Above FUSE the position may lie beyond the size (kernel zonefs: EINVAL).
zio "open $SEQ0 rdonly" "=8193 lseek 8193" "=0 read 100" || exit_failed "beyond"
zio "open $SEQ0 rdonly" "=100 lseek 100 data" "=8192 lseek 100 hole" "=0 lseek 0 data" "=8192 lseek 0 hole" "!ENXIO lseek 8192 data" \
	"!ENXIO lseek 8192 hole" "!ENXIO lseek -1 data" "!ENXIO lseek -1 hole" || exit_failed "SEEK_DATA, SEEK_HOLE"
zio "open $MNT/seq/1 rdonly" "!ENXIO lseek 0 data" "!ENXIO lseek 0 hole" "=0 lseek 0 end" || exit_failed "empty file"

pass
