#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: direct reads" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 20480 || exit_failed "write"
zio "open $SEQ0 rdonly,direct" "verify 0 20480" "verify $BS $((4 * BS))" "=$BS pread $((20480 - BS)) 8192" "=20480 pread 0 65536" "=0 pread 20480 $BS" \
	"=0 pread 20481 100" "=0 pread $CAP $BS" || exit_failed "aligned, and past the end"
zio "open $SEQ0 rdonly,direct" "!EINVAL pread 1 $BS" "!EINVAL pread 0 100" "!EINVAL pread 0 $((BS + 1))" "!EINVAL pread 100 100" ||
	exit_failed "not aligned"
fill seq/1 || exit_failed "fill"
zio "open $MNT/seq/1 rdonly,direct" "verify 0 $CAP" || exit_failed "the whole zone"
fs_is_writable || exit_failed "the file system went read-only"

pass
