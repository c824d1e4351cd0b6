#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: write across the capacity" "$@"

mount_zonefs || exit_failed "mount"
zio "open $SEQ0 wronly,direct" "=$((CAP - 4096)) pwrite 0 $((CAP - 4096))" "=4096 pwrite $((CAP - 4096)) 8192" || exit_failed "seq/0"
expect_size seq/0 "$CAP" || exit_failed "size of seq/0"
verify_file seq/0 0 "$CAP" || exit_failed "data of seq/0"
# The count is cut to the capacity before its alignment is looked at.
zio "open $MNT/seq/1 wronly,direct" "=$((CAP - BS)) pwrite 0 $((CAP - BS))" "=$BS pwrite $((CAP - BS)) $((BS + 100))" || exit_failed "seq/1"
expect_size seq/1 "$CAP" || exit_failed "size of seq/1"
verify_file seq/1 0 "$CAP" || exit_failed "data of seq/1"

pass
