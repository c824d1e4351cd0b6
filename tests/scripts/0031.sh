#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "umount: with an open file" "$@"

mount_zonefs || exit_failed "mount"
zio_start
zio_do "open $SEQ0 rdwr,direct" "=4096 pwrite 0 4096" || exit_failed "open and write"
if umount "$MNT"; then exit_failed "unmounted although a file is open"; fi
expect_refused "busy" zonefs_py umount "$MNT" || exit_failed "zonefs-py umount although a file is open"
zio_do "=4096 pwrite 4096 4096" || exit_failed "write after the refused umount"
# A lazy unmount lets the open file work on.
umount --lazy "$MNT" || exit_failed "umount --lazy"
! is_mounted || exit_failed "still mounted"
zio_do "=4096 pwrite 8192 4096" "verify 0 12288" "fsync" || exit_failed "I/O after the lazy umount"
zio_stop || exit_failed "close"
wait_until "the daemon ended" daemon_ended || exit_failed "daemon runs on"
mount_zonefs || exit_failed "mount again"
expect_size seq/0 12288 || exit_failed "size"
verify_file seq/0 0 12288 || exit_failed "data"

pass
