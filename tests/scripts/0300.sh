#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: write at the write pointer" "$@"

mount_zonefs || exit_failed "mount"
zio "open $SEQ0 wronly,direct" "=$BS pwrite 0 $BS" "=8192 pwrite $BS 8192" "=$((16 * BS)) pwrite $((BS + 8192)) $((16 * BS))" ||
	exit_failed "write"
expect_size seq/0 $((17 * BS + 8192)) || exit_failed "size"
verify_file seq/0 0 $((17 * BS + 8192)) || exit_failed "data"
[[ $(size_of seq/1) == 0 ]] || exit_failed "another file"
cmp "$SEQ0" <(zone_data seq/0 $((17 * BS + 8192))) || exit_failed "data of the zone"

pass
