#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: writes at and across the end" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
before=$(snapshot)
zio "open $CNV0 wronly" "!EFBIG pwrite $ZONE_SIZE 1" "!EFBIG pwrite $((ZONE_SIZE + 4096)) 4096" "=0 pwrite $ZONE_SIZE 0" \
	"!EFBIG pwrite 0x4000000000000000 1" "!EINVAL pwrite -4096 1" "open $CNV0 wronly,direct" "!EFBIG pwrite $ZONE_SIZE 4096" ||
	exit_failed "at the end"
expect_unchanged "$before" || exit_failed "something changed"
zio "open $CNV0 rdwr" "=100 pwrite $((ZONE_SIZE - 100)) 200" "verify $((ZONE_SIZE - 100)) 100" || exit_failed "across, buffered"
zio "open $CNV0 rdwr,direct" "=$BS pwrite $((ZONE_SIZE - BS)) $((3 * BS)) seed=2" "verify $((ZONE_SIZE - BS)) $BS seed=2" ||
	exit_failed "across, direct"
[[ $(size_of cnv/0) == "$ZONE_SIZE" ]] || exit_failed "size"
((NR_CNV < 2)) || zio "open $MNT/cnv/1 rdonly" "zeros 0 8192" || exit_failed "the next zone was written"

pass
