#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Counters: active files" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 4096 && write_seq seq/1 0 "$BS" || exit_failed "write"
expect_counters 0 2 || exit_failed "two files partly written"
fill seq/2 && zio "truncate $MNT/seq/3 $CAP" || exit_failed "fill"
expect_counters 0 2 || exit_failed "full files are not active"
zio "truncate $SEQ0 0" || exit_failed "truncate"
expect_counters 0 1 || exit_failed "an empty file is not active"
mount_again || exit_failed "mount again"
expect_counters 0 1 || exit_failed "counted anew at mount"
zio "truncate $MNT/seq/1 $CAP" || exit_failed "truncate"
expect_counters 0 0 || exit_failed "after the last was finished"

pass
