#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: write pointers moved while unmounted" "$@"

mount_zonefs || exit_failed "mount"
for i in 0 1 2 3; do write_seq "seq/$i" 0 8192 || exit_failed "write"; done
unmount_zonefs || exit_failed "umount"
zonefs_py zone reset "$DEV" "$(zone_of seq/1)" || exit_failed "zone reset"
zonefs_py zone finish "$DEV" "$(zone_of seq/2)" || exit_failed "zone finish"
move_wp seq/3 forward || exit_failed "write behind its back"
mount_zonefs || exit_failed "mount"
expect_size seq/0 8192 || exit_failed "untouched zone"
expect_size seq/1 0 || exit_failed "reset zone"
expect_size seq/2 "$CAP" || exit_failed "finished zone"
expect_size seq/3 $((8192 + BS)) || exit_failed "zone that was written on"
zio "open $MNT/seq/3 rdwr,direct" "verify 0 8192" "zeros 8192 $BS" "=$BS pwrite $((8192 + BS)) $BS" || exit_failed "seq/3"
zio "open $MNT/seq/2 rdwr,direct" "verify 0 8192" "zeros 8192 4096" "!EFBIG pwrite $CAP $BS" || exit_failed "seq/2"
write_seq seq/1 0 4096 || exit_failed "seq/1"

pass
