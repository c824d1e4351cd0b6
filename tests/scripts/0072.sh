#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sizes of sequential files" "$@"

mount_zonefs || exit_failed "mount"
[[ $(find "$MNT/seq" -type f -printf '%s\n' | sort --unique) == 0 ]] || exit_failed "not empty"
write_seq seq/0 0 8192 && expect_size seq/0 8192 || exit_failed "written"
fill seq/1 && expect_size seq/1 "$CAP" || exit_failed "filled"
zio "truncate $MNT/seq/2 $CAP" && expect_size seq/2 "$CAP" || exit_failed "finished"
[[ $(stat --format=%s "$MNT/seq/3") == 0 ]] || exit_failed "another file"
mount_again || exit_failed "mount again"
expect_size seq/0 8192 && expect_size seq/1 "$CAP" && expect_size seq/2 "$CAP" && expect_size seq/3 0 ||
	exit_failed "after another mount"

pass
