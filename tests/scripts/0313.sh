#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: two descriptors" "$@"

mount_zonefs || exit_failed "mount"
zio "open $SEQ0 wronly,direct" "open $SEQ0 wronly,direct" "@0 =4096 pwrite 0 4096" "@1 !EINVAL pwrite 0 4096" "@1 =4096 pwrite 4096 4096" \
	"@0 !EINVAL pwrite 4096 4096" "@0 =4096 pwrite 8192 4096" "open $SEQ0 rdonly" "verify 0 12288" "@1 =4096 pwrite 12288 4096" \
	"@2 verify 0 16384" "@2 =16384 size" || exit_failed "write by turns"
expect_size seq/0 16384 || exit_failed "size"

pass
