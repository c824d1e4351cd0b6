#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: truncate while others write" "$@"

mount_zonefs || exit_failed "mount"
zio_start
zio_do "open $SEQ0 rdwr,direct" "=8192 pwrite 0 8192" || exit_failed "write"
zio "truncate $SEQ0 0" || exit_failed "truncate"
zio_do "=0 size" "!EINVAL pwrite 8192 4096" "=4096 pwrite 0 4096 seed=2" "verify 0 4096 seed=2" || exit_failed "write after the reset"
zio "truncate $SEQ0 $CAP" || exit_failed "finish"
zio_do "=$CAP size" "!EINVAL pwrite 4096 4096" "!EFBIG pwrite $CAP 4096" "ftruncate 0" "=4096 pwrite 0 4096" || exit_failed "write after the finish"
zio_stop || exit_failed "close"
expect_size seq/0 4096 || exit_failed "size"

pass
