#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: writes across zones (aggr_cnv)" "$@"

require_cnv_files
format_device -o aggr_cnv || exit_failed "mkfs"
mount_zonefs || exit_failed "mount"
size=$((NR_CNV * ZONE_SIZE))
zio "open $CNV0 rdwr" "=$size pwrite 0 $size" "verify 0 $size" "=20000 pwrite $((ZONE_SIZE - 10000)) 20000 seed=2" \
	"open $CNV0 rdwr,direct" "=8192 pwrite $((2 * ZONE_SIZE - 4096)) 8192 seed=3" || exit_failed "write"
mount_again || exit_failed "mount again"
zio "open $CNV0 rdonly" "verify 0 $((ZONE_SIZE - 10000))" "verify $((ZONE_SIZE - 10000)) 20000 seed=2" \
	"verify $((ZONE_SIZE + 10000)) $((ZONE_SIZE - 14096))" "verify $((2 * ZONE_SIZE - 4096)) 8192 seed=3" \
	"verify $((2 * ZONE_SIZE + 4096)) $((size - 2 * ZONE_SIZE - 4096))" || exit_failed "data"
zio "open $CNV0 wronly" "=100 pwrite $((size - 100)) 200" "!EFBIG pwrite $size 1" || exit_failed "end of the file"

pass
