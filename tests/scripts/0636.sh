#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Read-only after an error: remount read-write" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
move_wp seq/0 forward || exit_failed "write behind the file system"
expect_log "seq/0: "
zio "open $SEQ0 wronly,direct" "!EIO pwrite 8192 4096" || exit_failed "write"
fs_is_read_only || exit_failed "not read-only"
zonefs_py mount "$DEV" "$MNT" -o remount,rw || exit_failed "remount"
fs_is_writable || exit_failed "still read-only"
zio "truncate $SEQ0 0" "open $SEQ0 wronly,direct" "=4096 pwrite 0 4096 seed=2" "open $SEQ0 rdonly" "verify 0 4096 seed=2" || exit_failed "the file itself"

pass
