#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: RWF_APPEND" "$@"

mount_zonefs || exit_failed "mount"
zio "open $SEQ0 rdwr,direct" "=4096 pwrite 0 4096" "=4096 pwrite 0 4096 rwf=append at=4096" "=4096 pwrite -1 4096 rwf=append at=8192" \
	"=4096 pwrite $((CAP + 4096)) 4096 rwf=append at=12288" "verify 0 16384" || exit_failed "append"
expect_size seq/0 16384 || exit_failed "size"
zio "open $SEQ0 wronly" "!EIO pwrite 0 4096 rwf=append" || exit_failed "buffered"
fill seq/1 || exit_failed "fill"
zio "open $MNT/seq/1 wronly,direct" "!EFBIG pwrite 0 4096 rwf=append" || exit_failed "full zone"
expect_size seq/0 16384 || exit_failed "size after the refusals"

pass
