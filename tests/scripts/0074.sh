#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Smaller last zone" "$@"

require_smaller_last_zone
mount_zonefs || exit_failed "mount"
last=seq/$((NR_SEQ - 1))
[[ $(stat --format='%s %b' "$MNT/$last") == "0 $((LAST_SIZE / 512))" ]] || exit_failed "size and blocks"
zio "open $MNT/$last rdwr,direct" "=$LAST_SIZE pwrite 0 $LAST_SIZE" "verify 0 $LAST_SIZE" "!EFBIG pwrite $LAST_SIZE 4096" ||
	exit_failed "fill"
expect_size "$last" "$LAST_SIZE" || exit_failed "size when full"
zio "truncate $MNT/$last 0" "!EPERM truncate $MNT/$last $CAP" "truncate $MNT/$last $LAST_SIZE" || exit_failed "truncate"
expect_size "$last" "$LAST_SIZE" || exit_failed "size when finished"

pass
