#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "explicit-open: zone conditions" "$@"

require_limits
mount_zonefs -o explicit-open || exit_failed "mount"
zio_start
zio_do "open $SEQ0 wronly,direct" || exit_failed "open"
expect_conditions "explicit-open" seq/0 && expect_counters 1 1 || exit_failed "after open"
zio_do "open $SEQ0 rdwr" "@1 close" || exit_failed "second open"
expect_conditions "explicit-open" seq/0 && expect_counters 1 1 || exit_failed "after close of one of two"
zio_do close || exit_failed "close"
wait_until "an unwritten zone is empty again" expect_conditions "empty" seq/0 && expect_counters 0 0 || exit_failed "after close, unwritten"

zio_do "open $SEQ0 wronly,direct" "=4096 pwrite 0 4096" || exit_failed "write"
expect_conditions "explicit-open" seq/0 && expect_counters 1 1 || exit_failed "after a write"
zio_do "open $SEQ0 rdonly" "@0 close" || exit_failed "close the writer, keep a reader"
wait_until "a written zone is closed" expect_conditions "closed" seq/0 && expect_counters 0 1 || exit_failed "after close, written"

zio_do "open $SEQ0 wronly,direct" || exit_failed "open again"
expect_conditions "explicit-open" seq/0 || exit_failed "closed zone opened again"
zio_do "=$((CAP - 4096)) pwrite 4096 $((CAP - 4096))" || exit_failed "fill"
expect_conditions "full" seq/0 && expect_counters 1 0 || exit_failed "when full"
zio_stop || exit_failed "close"
wait_until "closed" expect_counters 0 0 && expect_conditions "full" seq/0 || exit_failed "after close, full"
zio "open $SEQ0 rdonly" || exit_failed "open a full file to read"
expect_conditions "full" seq/0 || exit_failed "reader of a full file"

pass
