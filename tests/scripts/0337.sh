#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: zone conditions" "$@"

mount_zonefs || exit_failed "mount"
expect_conditions empty seq/0 || exit_failed "at first"
zio_start
zio_do "open $SEQ0 wronly,direct" || exit_failed "open"
expect_conditions empty seq/0 || exit_failed "after open"
zio_do "=4096 pwrite 0 4096" || exit_failed "write"
expect_conditions implicit-open seq/0 || exit_failed "after a write"
zio_do close || exit_failed "close"
zio_stop || exit_failed "close"
expect_conditions implicit-open seq/0 || exit_failed "after close"
zio "truncate $SEQ0 $CAP" && expect_conditions full seq/0 || exit_failed "after truncate to the capacity"
zio "truncate $SEQ0 0" && expect_conditions empty seq/0 || exit_failed "after truncate to 0"

pass
