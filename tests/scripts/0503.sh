#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Counters: more writers than the limit" "$@"

require_limits
mount_zonefs || exit_failed "mount"
zio_start
for i in 0 1 2 3 4 5 6 7; do
	zio_do "open $MNT/seq/$i wronly,direct" || exit_failed "open seq/$i"
done
expect_counters 8 0 || exit_failed "without explicit-open nothing is limited"
expect_conditions "empty empty" seq/0 seq/7 || exit_failed "conditions"
zio_stop || exit_failed "close"

pass
