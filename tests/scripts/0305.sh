#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: the whole capacity in one call" "$@"

mount_zonefs || exit_failed "mount"
zio "open $SEQ0 wronly,direct" "=$CAP pwrite 0 $CAP" "open $MNT/seq/1 wronly,direct" "=$CAP pwrite 0 $((CAP + 8192)) seed=2" || exit_failed "write"
expect_size seq/0 "$CAP" && expect_size seq/1 "$CAP" || exit_failed "size"
verify_file seq/0 0 "$CAP" && verify_file seq/1 0 "$CAP" seed=2 || exit_failed "data"
expect_conditions "full full empty" seq/0 seq/1 seq/2 || exit_failed "conditions"

pass
