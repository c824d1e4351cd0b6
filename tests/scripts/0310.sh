#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: flags of pwritev2 and preadv2" "$@"

mount_zonefs || exit_failed "mount"
zio "open $SEQ0 rdwr,direct" "=4096 pwrite 0 4096 rwf=dsync" "=4096 pwrite 4096 4096 rwf=sync" "=4096 pwrite 8192 4096 rwf=hipri" \
	"=4096 pread 0 4096 rwf=hipri" "verify 0 12288" || exit_failed "dsync, sync, hipri"
before=$(snapshot)
zio "open $SEQ0 rdwr,direct" "!EOPNOTSUPP pwrite 12288 4096 rwf=nowait" "!EOPNOTSUPP pread 0 4096 rwf=nowait" \
	"!EOPNOTSUPP pwrite 12288 4096 rwf=0x40000000" "open $SEQ0 rdonly" "!EOPNOTSUPP pread 0 4096 rwf=nowait" || exit_failed "nowait, unknown"
expect_unchanged "$before" || exit_failed "something changed"
zio "open $SEQ0 wronly,direct,sync" "=4096 pwrite 12288 4096" "open $SEQ0 wronly,direct,dsync" "=4096 pwrite 16384 4096" ||
	exit_failed "O_SYNC, O_DSYNC"
verify_file seq/0 0 20480 || exit_failed "data"

pass
