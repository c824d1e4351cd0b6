#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file as swap is refused" "$@"

require_program mkswap util-linux
mount_zonefs || exit_failed "mount"
truncate --size="$CAP" "$TEST_DIR/swap" && mkswap "$TEST_DIR/swap" >/dev/null || exit_failed "mkswap"
dd if="$TEST_DIR/swap" of="$SEQ0" bs=64k oflag=direct conv=notrunc status=none || exit_failed "dd"
before=$(snapshot)
expect_errno EINVAL zio "swapon $SEQ0" || exit_failed "swapon"
! grep --quiet --fixed-strings "$SEQ0" /proc/swaps || exit_failed "it is in use as swap"
expect_unchanged "$before" || exit_failed "something changed"
cmp "$TEST_DIR/swap" "$SEQ0" || exit_failed "data"

pass
