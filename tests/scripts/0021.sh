#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: bad magic and checksum" "$@"

require_changeable_superblock
save_superblock "$TEST_DIR/good"
zio "sbset $SB_FILE 0:00000000" || exit_failed "sbset"
expect_no_mount "magic|not.*zonefs|no zonefs" || exit_failed "bad magic"
restore_superblock "$TEST_DIR/good"
zio "sbset $SB_FILE 4:00000000 crc=keep" || exit_failed "sbset"
expect_no_mount "checksum|crc" || exit_failed "bad crc"
restore_superblock "$TEST_DIR/good"
zio "sbset $SB_FILE 8:41 crc=keep" || exit_failed "sbset"
expect_no_mount "checksum|crc" || exit_failed "label changed without the crc"
restore_superblock "$TEST_DIR/good"
mount_zonefs || exit_failed "mount of the repaired device"

pass
