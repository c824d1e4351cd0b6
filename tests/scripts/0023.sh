#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: odd but valid superblocks" "$@"

require_changeable_superblock
# uid, gid and perm without their feature bits, an all-zero uuid, a label without NUL
zio "sbset $SB_FILE 8:$(printf '41%.0s' {1..64}) 72:$(printf '00%.0s' {1..16}) 96:e8030000 100:e8030000 104:ff010000" ||
	exit_failed "sbset"
mount_zonefs || exit_failed "mount"
[[ $(stat --format='%a %u %g' "$SEQ0") == "640 0 0" ]] || exit_failed "fields without feature bits are used"
unmount_zonefs || exit_failed "umount"

# 0xffffffff without the feature bits; perm is not masked with 0777
zio "sbset $SB_FILE 88:08 96:ffffffff 100:ffffffff 104:ff030000" || exit_failed "sbset"
mount_zonefs || exit_failed "mount with unused uid and gid"
[[ $(stat --format='%a %u %g' "$SEQ0") == "1777 0 0" ]] || exit_failed "perm 01777"

pass
