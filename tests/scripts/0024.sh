#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: nothing to mount, nowhere to mount" "$@"

good=$DEV
DEV=$TEST_DIR/unformatted
create_small_device "$DEV" || exit_failed "create"
expect_no_mount "mkfs|zonefs|superblock" || exit_failed "unformatted device"
DEV=$TEST_DIR/absent
expect_no_mount "absent" || exit_failed "absent device"
DEV=$TEST_DIR/log
echo "text" >"$DEV"
expect_no_mount "$DEV" || exit_failed "regular file as device"
DEV=$good
expect_refused "absent" zonefs_py mount "$DEV" "$TEST_DIR/absent" --log-file "$TEST_DIR/refused.log" || exit_failed "absent mount point"
expect_refused "director|$TEST_DIR/log" zonefs_py mount "$DEV" "$TEST_DIR/log" --log-file "$TEST_DIR/refused.log" || exit_failed "file as mount point"
mount_zonefs || exit_failed "mount"

pass
