#!/bin/bash
# SPDX-License-Identifier: MIT
# long: writes the whole device
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "All sequential files filled" "$@"

mount_zonefs || exit_failed "mount"
for ((i = 0; i < NR_SEQ; i++)); do
	length=$CAP
	((i < NR_SEQ - 1 || LAST_SIZE > CAP)) || length=$((LAST_SIZE < CAP ? LAST_SIZE : CAP))
	write_seq "seq/$i" 0 "$length" "seed=$((i + 1))" || exit_failed "fill seq/$i"
done
mount_again || exit_failed "mount again"
for ((i = 0; i < NR_SEQ; i++)); do
	verify_file "seq/$i" 0 "$(size_of "seq/$i")" "seed=$((i + 1))" || exit_failed "data of seq/$i"
done
[[ $(stat --file-system --format='%f %a' "$MNT") == "0 0" ]] || exit_failed "free blocks"

pass
