#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "chown of files" "$@"

mount_zonefs || exit_failed "mount"
zio "chown $SEQ0 1000 -1" "chown $SEQ0 -1 2000" || exit_failed "chown"
[[ $(stat --format='%u %g' "$SEQ0" "$MNT/seq/1" | xargs) == "1000 2000 0 0" ]] || exit_failed "owner"
echo 2 >/proc/sys/vm/drop_caches
[[ $(stat --format='%u %g' "$SEQ0") == "1000 2000" ]] || exit_failed "lost with the caches"
mount_again || exit_failed "mount again"
[[ $(stat --format='%u %g' "$SEQ0") == "0 0" ]] || exit_failed "kept over umount"

pass
