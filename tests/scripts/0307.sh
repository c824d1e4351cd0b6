#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: O_APPEND" "$@"

mount_zonefs || exit_failed "mount"
zio "open $SEQ0 wronly,direct,append" "=4096 write 4096 at=0" "=4096 lseek 0 cur" "lseek 0" "=8192 write 8192 at=4096" "=12288 lseek 0 cur" \
	"=4096 pwrite 0 4096 at=12288" "=$BS pwrite $((CAP - BS)) $BS at=16384" || exit_failed "append"
expect_size seq/0 $((16384 + BS)) || exit_failed "size"
verify_file seq/0 0 $((16384 + BS)) || exit_failed "data"
before=$(snapshot)
zio "open $SEQ0 wronly,direct,append" "!EINVAL write 100 at=0" "!EINVAL write $((BS + 1)) at=0" || exit_failed "not aligned"
expect_unchanged "$before" || exit_failed "something changed"

pass
