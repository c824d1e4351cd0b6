#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: O_APPEND at the capacity" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 $((CAP - 4096)) || exit_failed "write"
zio "open $SEQ0 wronly,direct,append" "=4096 write 12288 at=$((CAP - 4096))" "=$CAP lseek 0 cur" "!EFBIG write 4096 at=0" \
	"!EFBIG write 100 at=0" "!EFBIG pwrite 0 4096" || exit_failed "append"
expect_size seq/0 "$CAP" || exit_failed "size"
verify_file seq/0 0 "$CAP" || exit_failed "data"
fs_is_writable || exit_failed "the file system went read-only"

pass
