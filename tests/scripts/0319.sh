#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: unaligned write larger than a FUSE request" "$@"

mount_zonefs || exit_failed "mount"
# The kernel cuts a write into requests of 1 MiB, so the aligned ones succeed (kernel zonefs: EINVAL, nothing written).
zio "open $SEQ0 wronly,direct" "=1048576 pwrite 0 $((1048576 + 100))" || exit_failed "write"
expect_size seq/0 1048576 || exit_failed "size"
zio "open $SEQ0 rdwr,direct" "verify 0 1048576" "=$((1048576 + BS)) pwrite 1048576 $((1048576 + BS))" "verify 1048576 $((1048576 + BS))" ||
	exit_failed "write on"

pass
