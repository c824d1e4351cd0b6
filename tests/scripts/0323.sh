#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: reads after reset and rewrite" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 16384 || exit_failed "write"
zio_start
zio_do "open $SEQ0 rdonly" "verify 0 16384" "open $SEQ0 rdonly,direct" "verify 0 16384" || exit_failed "first read"
zio "truncate $SEQ0 0" "open $SEQ0 wronly,direct" "=8192 pwrite 0 8192 seed=2" || exit_failed "rewrite"
zio_do "@0 verify 0 8192 seed=2" "@0 =0 pread 8192 4096" "@0 =8192 size" "@1 verify 0 8192 seed=2" || exit_failed "descriptor opened before"
write_seq seq/0 8192 4096 seed=2 || exit_failed "write on"
zio_do "@0 verify 0 12288 seed=2" "@1 verify 8192 4096 seed=2" || exit_failed "growth"
zio_stop || exit_failed "close"

pass
