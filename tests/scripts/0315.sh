#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: RLIMIT_FSIZE" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
before=$(snapshot)
# The log must not be subject to the limit: hence the pipe.
zio "open $SEQ0 wronly,direct" "rlimit_fsize 8192" "!EFBIG pwrite 8192 4096" "!EFBIG truncate $SEQ0 $CAP" |
	cat || exit_failed "at the limit"
expect_unchanged "$before" || exit_failed "something changed"
zio "open $SEQ0 wronly,direct" "rlimit_fsize 12288" "=4096 pwrite 8192 8192" | cat || exit_failed "across the limit"
expect_size seq/0 12288 || exit_failed "size"

pass
