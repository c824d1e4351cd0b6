#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Active limit: truncate to the capacity" "$@"

require_limits
mount_zonefs || exit_failed "mount"
for ((i = 0; i < MAX_ACTIVE; i++)); do
	write_seq "seq/$i" 0 4096 || exit_failed "write seq/$i"
done
read -r -a found < <(conditions seq/0 seq/1 seq/2 seq/3 seq/4 seq/5)
for ((i = 0; i < MAX_ACTIVE; i++)); do
	[[ ${found[$i]} != closed ]] || closed=$i
	[[ ${found[$i]} != implicit-open ]] || opened=$i
done
if ! finish_needs_room; then
	zio "truncate $MNT/seq/$MAX_ACTIVE $CAP" "truncate $MNT/seq/$closed $CAP" || exit_failed "truncate"
	expect_size "seq/$MAX_ACTIVE" "$CAP" && expect_size "seq/$closed" "$CAP" || exit_failed "not full"
	expect_counters 0 $((MAX_ACTIVE - 1)) || exit_failed "counters"
	pass
fi
zio "!EOVERFLOW truncate $MNT/seq/$MAX_ACTIVE $CAP" "!ETOOMANYREFS truncate $MNT/seq/$closed $CAP" || exit_failed "truncate"
expect_file "seq/$MAX_ACTIVE" 640 0 && expect_file "seq/$closed" 640 4096 || exit_failed "something changed"
fs_is_writable || exit_failed "a refused truncate is no I/O error"
zio "truncate $MNT/seq/$opened $CAP" "truncate $MNT/seq/$closed $CAP" || exit_failed "an open zone can be finished"
expect_counters 0 $((MAX_ACTIVE - 2)) || exit_failed "counters"
zio "truncate $MNT/seq/$MAX_ACTIVE $CAP" || exit_failed "there is room again"

pass
