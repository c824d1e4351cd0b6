#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Inode numbers" "$@"

mount_zonefs || exit_failed "mount"
inode() {
	stat --format=%i "$MNT/$1"
}
[[ $(inode .) == "$ZONES" && $(inode seq) == $((ZONES + 2)) ]] || exit_failed "directories"
for ((i = 0; i < NR_SEQ; i++)); do
	[[ $(inode "seq/$i") == $((FIRST_SEQ + i)) ]] || exit_failed "seq/$i"
done
for ((i = 0; i < NR_CNV; i++)); do
	[[ $(inode "cnv/$i") == $((1 + i)) ]] || exit_failed "cnv/$i"
done
((NR_CNV == 0)) || [[ $(inode cnv) == $((ZONES + 1)) ]] || exit_failed "cnv"

pass
