#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: mmap" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
zio "open $CNV0 rdwr" "=16384 pwrite 0 16384" || exit_failed "write"
before=$(snapshot)
zio "open $CNV0 rdonly" "mmap 16384 private r" "peek 0 16384" "mmap 8192 private r 8192" || exit_failed "private, r"
zio "open $CNV0 rdwr" "mmap 16384 private rw" "peek 0 16384" "poke 0 4096 seed=2" "peek 0 4096 seed=2" "verify 0 16384" ||
	exit_failed "private, rw"
zio "open $CNV0 wronly" "!EACCES mmap 4096 shared w" "!EACCES mmap 4096 private r" "open $CNV0 rdonly" \
	"!EACCES mmap 4096 shared rw" || exit_failed "access mode"
expect_unchanged "$before" || exit_failed "something changed"

zio "open $CNV0 rdonly" "mmap 4096 shared r" "peek 0 4096" "open $CNV0 rdwr" "mmap 16384 shared rw" "peek 0 16384" \
	"poke 4000 1000 seed=3" msync "open $CNV0 rdonly" "verify 4000 1000 seed=3" "verify 0 4000" "verify 5000 11384" "open $CNV0 rdonly,direct" \
	"verify 8192 8192" || exit_failed "shared"
zio "open $CNV0 rdonly" "mmap $((ZONE_SIZE + 8192)) private r" "=SIGBUS touch $ZONE_SIZE" || exit_failed "past the end"
mount_again || exit_failed "mount again"
zio "open $CNV0 rdonly" "verify 0 4000" "verify 4000 1000 seed=3" "verify 5000 11384" || exit_failed "data after another mount"

pass
