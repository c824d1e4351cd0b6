#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: buffered reads" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 20480 || exit_failed "write"
zio "open $SEQ0 rdonly" "verify 0 20480" "verify 1 100" "verify 4095 8194" "=10 pread 20470 4096" "=0 pread 20480 100" "=0 pread $CAP 100" \
	"=0 pread $((2 * ZONE_SIZE)) 4096" "=0 pread 0 0" "!EINVAL pread -4096 10" "=100 read 100" "=100 lseek 0 cur" \
	"=300 pread 50 300 iov=1,99,200" || exit_failed "read"
zio "open $MNT/seq/1 rdonly" "=0 pread 0 4096" || exit_failed "empty file"

pass
