#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Directories used as files" "$@"

mount_zonefs || exit_failed "mount"
for dir in "$MNT" "$MNT/seq"; do
	zio "!EISDIR open $dir wronly" "!EISDIR open $dir rdwr" "!EINVAL open $dir rdonly,direct" "!EISDIR truncate $dir 0" \
		"open $dir rdonly" "!EISDIR read 100" "!EISDIR pread 0 100" "!EINVAL ftruncate 0" "!EINVAL fsync" "!EINVAL fdatasync" \
		"=5 lseek 5" "=1000 lseek 1000" || exit_failed "$dir"
done
zio "open $MNT/seq rdonly,directory" "=$NR_SEQ lseek 0 end" || exit_failed "SEEK_END"
zio "!ENOTDIR open $SEQ0 rdonly,directory" || exit_failed "O_DIRECTORY on a file"

pass
