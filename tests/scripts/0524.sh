#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "explicit-open: truncate to the capacity at the limits" "$@"

require_limits
mount_zonefs -o explicit-open || exit_failed "mount"
write_seq seq/8 0 4096 || exit_failed "write"
zio_start
for ((i = 0; i < MAX_OPEN; i++)); do
	zio_do "open $MNT/seq/$i wronly,direct" || exit_failed "open seq/$i"
done
if ! finish_needs_room; then
	zio "truncate $MNT/seq/9 $CAP" "truncate $MNT/seq/8 $CAP" || exit_failed "truncate"
	expect_size seq/9 "$CAP" && expect_size seq/8 "$CAP" || exit_failed "not full"
	zio_stop || exit_failed "close"
	pass
fi
before=$(snapshot)
zio "!ETOOMANYREFS truncate $MNT/seq/9 $CAP" "!ETOOMANYREFS truncate $MNT/seq/8 $CAP" || exit_failed "truncate"
expect_unchanged "$before" || exit_failed "something changed"
zio "truncate $MNT/seq/8 0" "truncate $SEQ0 $CAP" || exit_failed "reset, and finish of an open zone"
zio_stop || exit_failed "close"
fs_is_writable || exit_failed "a refused truncate is no I/O error"

pass
