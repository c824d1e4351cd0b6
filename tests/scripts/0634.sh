#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Degraded file: access by owner and root" "$@"

mount_zonefs -o errors=zone-ro || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
zio "chown $SEQ0 1000 1000" "chmod $SEQ0 666" || exit_failed "chown, chmod"
move_wp seq/0 forward || exit_failed "write behind the file system"
expect_log "seq/0: "
zio "user 1000 1000" "open $SEQ0 rdwr,direct" "!EIO pwrite 8192 4096" || exit_failed "write"
expect_file seq/0 444 8192 || exit_failed "only the write bits go"
for user in "user 0 0" "user 1000 1000"; do
	zio "$user" "open $SEQ0 rdonly" "verify 0 8192" "!EPERM chmod $SEQ0 600" || exit_failed "$user"
done
zio "!EPERM open $SEQ0 wronly,direct" "!EPERM open $SEQ0 rdonly,trunc" "!EPERM chown $SEQ0 0 0" "!EPERM truncate $SEQ0 $CAP" || exit_failed "root"
echo 2 >/proc/sys/vm/drop_caches
expect_file seq/0 444 8192 || exit_failed "forgotten with the caches"
expect_size_mismatch seq/0

pass
