#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: memory that is not aligned or not there" "$@"

mount_zonefs || exit_failed "mount"
# FUSE copies the data: the memory's alignment does not matter, and a bad pointer harms nobody but its caller
# (kernel zonefs executes the errors= action).
zio "open $SEQ0 rdwr,direct" "=4096 pwrite 0 4096 mem=512" "=4096 pwrite 4096 4096 mem=1" "=4096 pwrite 8192 4096 iov=1,100,3995" \
	"verify 0 12288" "=4096 pread 4096 4096 mem=1" "=8192 pread 0 8192 iov=100,8092" || exit_failed "misaligned memory"
before=$(snapshot)
zio "open $SEQ0 rdwr,direct" "!EFAULT pwrite 12288 4096 mem=bad" "!EFAULT pread 0 4096 mem=bad" || exit_failed "bad pointer"
expect_unchanged "$before" || exit_failed "something changed"
zio "open $SEQ0 rdwr,direct" "=4096 pwrite 12288 8192 mem=half" "=20480 pwrite 16384 20480" "verify 16384 20480" || exit_failed "second page missing"
fs_is_writable || exit_failed "the file system went read-only"
expect_size seq/0 36864 || exit_failed "size"

pass
