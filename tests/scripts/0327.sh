#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: fallocate" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
before=$(snapshot)
for modes in 0 keep punch,keep zero zero,keep collapse insert unshare; do
	zio "open $SEQ0 rdwr,direct" "!EOPNOTSUPP fallocate 0 8192 $modes" "!EOPNOTSUPP fallocate 8192 8192 $modes" || exit_failed "fallocate $modes"
done
zio "open $SEQ0 rdonly" "!EBADF fallocate 0 4096" "open $SEQ0 rdwr" "!EINVAL fallocate 0 0" || exit_failed "bad arguments"
expect_unchanged "$before" || exit_failed "something changed"

pass
