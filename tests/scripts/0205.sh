#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: direct I/O" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
zio "open $CNV0 rdwr,direct" "=8192 pwrite $((2 * BS)) 8192" "verify $((2 * BS)) 8192" "zeros 0 $((2 * BS))" \
	"=$BS pwrite $((2 * BS)) $BS seed=2" "verify $((2 * BS)) $BS seed=2" "verify $((3 * BS)) $((8192 - BS))" || exit_failed "aligned"
before=$(snapshot)
zio "open $CNV0 rdwr,direct" "!EINVAL pwrite 1 $BS" "!EINVAL pwrite 0 100" "!EINVAL pwrite 0 $((BS + 1))" "!EINVAL pwrite 256 256" \
	"!EINVAL pwrite $((ZONE_SIZE - 100)) 200" "!EINVAL pread 1 $BS" "!EINVAL pread 0 100" "!EINVAL pread $BS $((BS - 1))" ||
	exit_failed "not aligned"
expect_unchanged "$before" || exit_failed "something changed"

pass
