#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: each invalid superblock field" "$@"

require_changeable_superblock
save_superblock "$TEST_DIR/good"
refused() {
	restore_superblock "$TEST_DIR/good" && zio "sbset $SB_FILE ${*:2}" && expect_no_mount "$1"
}
refused "feature" 88:10 || exit_failed "unknown feature bit 4"
refused "feature" 95:80 || exit_failed "unknown feature bit 63"
refused "uid" 88:02 96:ffffffff || exit_failed "uid -1"
refused "gid" 88:04 100:ffffffff || exit_failed "gid -1"
refused "reserved" 108:01 || exit_failed "first reserved byte"
refused "reserved" 4095:01 || exit_failed "last reserved byte"

pass
