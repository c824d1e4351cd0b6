#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: wrong access mode" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 4096 || exit_failed "write"
before=$(snapshot)
zio "open $SEQ0 rdonly,direct" "!EBADF pwrite 4096 4096" "open $SEQ0 wronly,direct" "!EBADF pread 0 4096" "open $SEQ0 path" \
	"!EBADF pread 0 4096" "open $SEQ0 accmode3" "!EBADF pread 0 4096" "!EBADF pwrite 4096 4096" || exit_failed "access modes"
expect_unchanged "$before" || exit_failed "something changed"

pass
