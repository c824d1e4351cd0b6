#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mkfs: sequential zones are reset" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 4096 || exit_failed "write"
fill seq/1 || exit_failed "fill"
unmount_zonefs || exit_failed "umount"
format_device || exit_failed "mkfs"
mount_zonefs || exit_failed "mount after mkfs"
for ((i = 0; i < NR_SEQ; i++)); do
	expect_size "seq/$i" 0 || exit_failed "seq/$i is not empty"
done

pass
