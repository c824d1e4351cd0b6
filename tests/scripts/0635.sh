#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Degraded file: umount and mount read the device anew" "$@"

mount_zonefs -o errors=zone-offline || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
move_wp seq/0 forward || exit_failed "write behind the file system"
expect_log "seq/0: "
zio "open $SEQ0 wronly,direct" "!EIO pwrite 8192 4096" || exit_failed "write"
expect_file seq/0 0 0 || exit_failed "file"
mount_again || exit_failed "mount again"
expect_file seq/0 640 $((8192 + BS)) || exit_failed "file after another mount"
zio "open $SEQ0 rdwr,direct" "verify 0 8192" "zeros 8192 $BS" "=4096 pwrite $((8192 + BS)) 4096" || exit_failed "access"
expect_conditions implicit-open seq/0 || exit_failed "condition"

pass
