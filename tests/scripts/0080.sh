#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Names of files" "$@"

mount_zonefs || exit_failed "mount"
for ((i = 0; i < NR_SEQ; i++)); do
	[[ -f $MNT/seq/$i ]] || exit_failed "seq/$i"
done
for name in "$NR_SEQ" 00 01 -1 +1 0x0 " 0" "0 " 1.0 a 4294967296 9999999999999999 x; do
	zio "!ENOENT open '$MNT/seq/$name' rdonly" || exit_failed "seq/'$name'"
done
zio "!ENOENT open $MNT/0 rdonly" "!ENOENT open $MNT/SEQ rdonly" "!ENOENT open $MNT/seq0 rdonly" || exit_failed "names in the root"
zio "!ENOTDIR open $SEQ0/ rdonly" "!ENOTDIR open $SEQ0/x rdonly" || exit_failed "file used as a directory"

pass
