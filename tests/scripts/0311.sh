#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: F_SETFL of O_DIRECT and O_APPEND" "$@"

mount_zonefs || exit_failed "mount"
zio "open $SEQ0 rdwr" "!EIO pwrite 0 4096" "setfl direct" "=4096 pwrite 0 4096" "setfl 0" "!EIO pwrite 4096 4096" "setfl direct,append" \
	"=4096 pwrite 0 4096 at=4096" "setfl direct" "!EINVAL pwrite 0 4096" "verify 0 8192" "!EINVAL pread 1 100" "setfl 0" "=100 pread 1 100" ||
	exit_failed "flags changed with fcntl do not count"
expect_size seq/0 8192 || exit_failed "size"

pass
