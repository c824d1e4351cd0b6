#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: device that is in use" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 4096 || exit_failed "write"
before=$(snapshot)
mkdir "$TEST_DIR/second"
expect_refused "in use.*$(daemon_pid)" zonefs_py mount "$DEV" "$TEST_DIR/second" --log-file "$TEST_DIR/refused.log" || exit_failed "mounted twice"
! is_mounted "$TEST_DIR/second" || exit_failed "second mount is there"
expect_refused "in use.*$(daemon_pid)" zonefs_py zone reset "$DEV" "$(zone_of seq/0)" || exit_failed "reset below a mount"
expect_unchanged "$before" || exit_failed "something changed"

pass
