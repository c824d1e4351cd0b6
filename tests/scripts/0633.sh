#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Offline zone: truncate fails" "$@"

require_breakable_zones
mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
force_zone offline seq/0 || exit_failed "offline"
zio "open $SEQ0 wronly,direct" "!EIO ftruncate 0" "!EIO truncate $SEQ0 $CAP" || exit_failed "truncate"
expect_file seq/0 640 8192 || exit_failed "file"
fs_is_writable || exit_failed "the file system went read-only"
force_zone online seq/0 || exit_failed "online"
if on_block_device; then
	zio "truncate $SEQ0 0" || exit_failed "a zone of null_blk comes back empty"
else
	verify_file seq/0 0 8192 || exit_failed "data when it is back"
fi
zio "open $SEQ0 wronly,direct" "=4096 pwrite $(size_of seq/0) 4096" || exit_failed "write when it is back"

pass
