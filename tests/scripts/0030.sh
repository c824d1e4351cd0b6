#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "remount: zonefs options" "$@"

DEV=$TEST_DIR/limited
create_small_device "$DEV" --max-open 4 && format_device || exit_failed "device"
mount_zonefs || exit_failed "mount"
zonefs_py mount "$DEV" "$MNT" -o remount,errors=zone-ro,explicit-open || exit_failed "remount"
[[ $(counter options) == *errors=zone-ro* && $(counter options) == *explicit-open* ]] || exit_failed "options"
zio_start
zio_do "open $SEQ0 wronly,direct" || exit_failed "open"
expect_conditions explicit-open seq/0 || exit_failed "explicit-open counts for later opens"
zio_stop || exit_failed "close"
before=$(counter options)
expect_usage_error "errors" zonefs_py mount "$DEV" "$MNT" -o remount,errors=foo || exit_failed "bad policy"
expect_usage_error "nonesuch" zonefs_py mount "$DEV" "$MNT" -o remount,nonesuch || exit_failed "unknown option"
[[ $(counter options) == "$before" ]] || exit_failed "a refused remount changed the options"
move_wp seq/0 forward && expect_log "seq/0: " || exit_failed "write behind the file system"
zio "open $SEQ0 wronly,direct" "!EIO pwrite 0 4096" || exit_failed "write"
expect_file seq/0 440 0 || exit_failed "the new policy is in force"
expect_size_mismatch seq/0

pass
