#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Read-only zone: reads work, truncate fails" "$@"

require_breakable_zones
mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
force_zone readonly seq/0 || exit_failed "readonly"
zio "open $SEQ0 rdonly" "verify 0 8192" "open $SEQ0 wronly,direct" "!EIO ftruncate 0" "!EIO truncate $SEQ0 $CAP" "!EIO open $SEQ0 rdwr,trunc" ||
	exit_failed "access"
# A failing truncate does not trigger the errors= action.
expect_file seq/0 640 8192 || exit_failed "file"
fs_is_writable || exit_failed "the file system went read-only"
verify_file seq/0 0 8192 || exit_failed "data"
force_zone online seq/0 || exit_failed "online"
! on_block_device || zio "truncate $SEQ0 0" || exit_failed "a zone of null_blk comes back empty"
zio "open $SEQ0 wronly,direct" "=4096 pwrite $(size_of seq/0) 4096" || exit_failed "write when it is back"

pass
