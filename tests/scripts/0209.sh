#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: reads" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
zio "open $CNV0 wronly" "=$ZONE_SIZE pwrite 0 $ZONE_SIZE" || exit_failed "write"
zio "open $CNV0 rdonly" "verify 0 $ZONE_SIZE" "verify 12345 54321" "=100 pread $((ZONE_SIZE - 100)) 4096" "=0 pread $ZONE_SIZE 100" \
	"=0 pread $((ZONE_SIZE * 4)) 100" "=0 pread 0 0" "!EINVAL pread -4096 100" || exit_failed "buffered"
zio "open $CNV0 rdonly,direct" "verify 0 $ZONE_SIZE" "verify 8192 $BS" "=$BS pread $((ZONE_SIZE - BS)) 8192" "=0 pread $ZONE_SIZE $BS" \
	"=0 pread $((ZONE_SIZE + 1)) 100" || exit_failed "direct"
zio "open $CNV0 wronly" "!EBADF pread 0 100" "open $CNV0 rdonly" "!EBADF pwrite 0 100" || exit_failed "wrong access mode"

pass
