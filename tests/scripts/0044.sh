#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Free blocks of statfs follow the write pointers" "$@"

mount_zonefs || exit_failed "mount"
free=$(stat --file-system --format=%f "$MNT")
expect_free() {
	[[ $(stat --file-system --format=%f "$MNT") == $((free - $1 / BS)) ]]
}
write_seq seq/0 0 8192 && expect_free 8192 || exit_failed "after a write"
zio "truncate $MNT/seq/1 $CAP" && expect_free $((8192 + CAP)) || exit_failed "after a finish: unwritten, but used"
zio "truncate $SEQ0 0" && expect_free "$CAP" || exit_failed "after a reset"
fill seq/0 && expect_free $((2 * CAP)) || exit_failed "after filling a zone"
mount_again || exit_failed "mount again"
expect_free $((2 * CAP)) || exit_failed "after another mount"

pass
