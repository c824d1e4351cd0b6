#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: fallocate" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
zio "open $CNV0 wronly" "=8192 pwrite 0 8192" || exit_failed "write"
before=$(snapshot)
for modes in 0 keep punch,keep zero zero,keep collapse insert unshare; do
	zio "open $CNV0 rdwr" "!EOPNOTSUPP fallocate 0 4096 $modes" || exit_failed "fallocate $modes"
done
zio "open $CNV0 rdonly" "!EBADF fallocate 0 4096" "open $CNV0 rdwr" "!EINVAL fallocate 0 0" "!EINVAL fallocate -1 4096" ||
	exit_failed "bad arguments"
expect_unchanged "$before" || exit_failed "something changed"
zio "open $CNV0 rdwr" "posix_fallocate 0 $ZONE_SIZE" "verify 0 8192" "zeros 8192 8192" || exit_failed "posix_fallocate"

pass
