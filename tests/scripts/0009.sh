#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mkfs: mounted device" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 4096 || exit_failed "write"
before=$(snapshot)
expect_refused "in use.*$(daemon_pid)" format_device || exit_failed "formats a mounted device"
expect_unchanged "$before" || exit_failed "a refused mkfs changed something"
verify_file seq/0 0 4096 || exit_failed "data"

pass
