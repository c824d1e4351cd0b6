#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Moved write pointer is noticed by writes only" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
move_wp seq/0 forward || exit_failed "write behind the file system"
zio "open $SEQ0 rdonly" "verify 0 8192" "=0 pread 8192 4096" "open $SEQ0 rdonly,direct" "verify 0 8192" "open $SEQ0 wronly" || exit_failed "open and read"
expect_file seq/0 640 8192 || exit_failed "noticed"
# truncate resets the zone, wherever its write pointer is.
zio "truncate $SEQ0 0" || exit_failed "truncate"
expect_size seq/0 0 || exit_failed "size"
write_seq seq/0 0 4096 seed=2 && verify_file seq/0 0 4096 seed=2 || exit_failed "write"
fs_is_writable || exit_failed "the file system went read-only"

pass
