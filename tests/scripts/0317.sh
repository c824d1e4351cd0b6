#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: asynchronous I/O" "$@"

mount_zonefs || exit_failed "mount"
zio "open $SEQ0 rdwr,direct" "=4096,8192,4096 aio 0:4096 4096:8192 12288:4096" "verify 0 16384" \
	"=EINVAL,4096 aio 20480:4096 16384:4096" "=EINVAL,EINVAL aio 0:4096 40960:4096" "verify 0 20480" || exit_failed "direct"
expect_size seq/0 20480 || exit_failed "size"
zio "open $SEQ0 rdwr,direct,append" "=4096,4096 aio 0:4096 0:4096" "verify 20480 4096 at=0" "verify 24576 4096 at=0" || exit_failed "O_APPEND"
zio "open $SEQ0 rdwr" "=EIO aio 28672:4096" || exit_failed "buffered"
expect_size seq/0 28672 || exit_failed "size after the refusals"
fs_is_writable || exit_failed "the file system went read-only"

pass
