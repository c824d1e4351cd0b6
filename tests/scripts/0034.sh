#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: open zones are closed" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 4096 || exit_failed "write"
expect_conditions "implicit-open empty" seq/0 seq/1 || exit_failed "before"
# umount does not touch the conditions; the emulated device forgets open ones as at a loss of power.
mount_again || exit_failed "mount again"
expect_conditions "closed empty" seq/0 seq/1 || exit_failed "after"
expect_counters 0 1 || exit_failed "counters"
write_seq seq/0 4096 4096 || exit_failed "write on"
verify_file seq/0 0 8192 || exit_failed "data"

pass
