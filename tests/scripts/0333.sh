#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: truncate beyond the capacity" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 4096 || exit_failed "write"
before=$(snapshot)
if ((CAP < FILE_MAX)); then
	zio "!EPERM truncate $SEQ0 $((CAP + 1))" "!EPERM truncate $SEQ0 $((CAP + BS))" "!EPERM truncate $SEQ0 $FILE_MAX" || exit_failed "up to the largest file"
fi
# More than the largest file of the file system can hold.
zio "!EFBIG truncate $SEQ0 $((FILE_MAX + 1))" "!EFBIG truncate $SEQ0 $((FILE_MAX + BS))" "!EFBIG truncate $SEQ0 0x4000000000000000" \
	"!EINVAL truncate $SEQ0 -1" "open $SEQ0 rdwr" "!EFBIG ftruncate $((FILE_MAX + 1))" "!EINVAL ftruncate -1" || exit_failed "beyond"
zio "open $SEQ0 rdonly" "!EINVAL ftruncate 0" "!EINVAL ftruncate $CAP" "!EISDIR truncate $MNT/seq 0" "!ENOENT truncate $MNT/seq/new 0" ||
	exit_failed "wrong files"
expect_unchanged "$before" || exit_failed "something changed"

pass
