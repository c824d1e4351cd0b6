#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "explicit-open: ignored by devices without limits" "$@"

require_no_limits
mount_zonefs -o explicit-open || exit_failed "mount"
zio_start
for i in 0 1 2 3 4 5 6 7; do
	zio_do "open $MNT/seq/$i wronly,direct" || exit_failed "open seq/$i"
done
expect_conditions "empty empty" seq/0 seq/7 || exit_failed "after open"
expect_counters 8 0 || exit_failed "counters"
zio_do "=4096 pwrite 0 4096" || exit_failed "write"
expect_conditions "empty implicit-open" seq/0 seq/7 || exit_failed "after a write"
zio_stop || exit_failed "close"

pass
