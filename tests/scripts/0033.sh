#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: where a daemon was killed" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
touch "$DAEMON/killed"
kill -KILL "$(daemon_pid)" || exit_failed "kill"
wait_until "the daemon ended" daemon_ended || exit_failed "daemon"
is_mounted || exit_failed "the kernel unmounted by itself"
expect_errno ENOTCONN zio "open $SEQ0 rdonly" || exit_failed "stale mount"
expect_refused "daemon|umount" zonefs_py info "$MNT" || exit_failed "info on a stale mount"
mount_zonefs || exit_failed "mount over a stale one"
expect_size seq/0 8192 || exit_failed "size"
verify_file seq/0 0 8192 || exit_failed "data"
[[ $(grep --count --fixed-strings " $MNT " /proc/self/mountinfo) == 1 ]] || exit_failed "the stale mount is still there"

touch "$DAEMON/killed"
kill -KILL "$(daemon_pid)" && wait_until "the daemon ended" daemon_ended || exit_failed "kill"
zonefs_py umount "$MNT" || exit_failed "umount of a stale mount"
! is_mounted || exit_failed "still mounted"

pass
