#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: in the background, umount" "$@"

zonefs_py mount "$DEV" "$MNT" --log-file "$LOG_FILE" || exit_failed "mount"
[[ -f $SEQ0 ]] || exit_failed "mount returned before the file system answers"
pid=$(zonefs_py info "$MNT" --format json | json mount pid)
mkdir "$TEST_DIR/daemon.0" && touch "$TEST_DIR/daemon.0/detached" && echo "$pid" >"$TEST_DIR/daemon.0/pid"
kill -0 "$pid" || exit_failed "no process $pid"
[[ $(findmnt --noheadings --output FSTYPE "$MNT") == fuse.zonefs-py ]] || exit_failed "type in /proc/mounts"
[[ $(findmnt --noheadings --output OPTIONS "$MNT") == rw,* ]] || exit_failed "options in /proc/mounts"
zonefs_py umount "$MNT" || exit_failed "umount"
! is_mounted || exit_failed "still mounted"
ended() { ! kill -0 "$pid" 2>/dev/null; }
wait_until "the daemon ended" ended || exit_failed "the daemon outlives the mount"
expect_refused "not mounted|no.*mount" zonefs_py umount "$MNT" || exit_failed "umount of what is not mounted"

pass
