#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "explicit-open: truncate of an open file" "$@"

require_limits
mount_zonefs -o explicit-open || exit_failed "mount"
zio_start
zio_do "open $SEQ0 wronly,direct" "=4096 pwrite 0 4096" "ftruncate 0" || exit_failed "write, reset"
expect_conditions explicit-open seq/0 && expect_counters 1 1 || exit_failed "a reset zone is opened again"
zio_do "=4096 pwrite 0 4096" "close" || exit_failed "write, close"
wait_until "closed" expect_counters 0 1 || exit_failed "after close"
zio_do "open $SEQ0 wronly,direct" "ftruncate $CAP" || exit_failed "finish"
expect_conditions full seq/0 && expect_counters 1 0 || exit_failed "finished while open"
zio_do "ftruncate 0" || exit_failed "reset of the finished zone"
expect_conditions empty seq/0 && expect_counters 1 0 || exit_failed "not opened again after a finish"
zio_stop || exit_failed "close"

pass
