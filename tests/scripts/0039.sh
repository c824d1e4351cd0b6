#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: read-only and offline zones" "$@"

require_emulated "zones that come back have lost their data"
mount_zonefs || exit_failed "mount"
for i in 0 1 2; do write_seq "seq/$i" 0 4096 || exit_failed "write"; done
unmount_zonefs || exit_failed "umount"
zonefs_py zone readonly "$DEV" "$(zone_of seq/0)" || exit_failed "zone readonly"
zonefs_py zone offline "$DEV" "$(zone_of seq/1)" || exit_failed "zone offline"
mount_zonefs || exit_failed "mount"
# Both at once: a zone that is read-only at mount has no write pointer to take a size from.
for i in 0 1; do
	expect_file "seq/$i" 0 0 || exit_failed "seq/$i"
	[[ $(stat --format=%b "$MNT/seq/$i") == $((CAP / 512)) ]] || exit_failed "blocks of seq/$i"
	zio "open $MNT/seq/$i rdonly" "!EPERM pread 0 4096" "!EPERM open $MNT/seq/$i wronly,direct" "!EPERM truncate $MNT/seq/$i 0" \
		"!EPERM chmod $MNT/seq/$i 600" || exit_failed "access to seq/$i"
done
verify_file seq/2 0 4096 || exit_failed "other file"
write_seq seq/2 4096 4096 || exit_failed "write to another file"
unmount_zonefs || exit_failed "umount"
zonefs_py zone online "$DEV" "$(zone_of seq/0)" "$(zone_of seq/1)" || exit_failed "zone online"
mount_zonefs || exit_failed "mount"
for i in 0 1; do
	expect_file "seq/$i" 640 4096 || exit_failed "seq/$i online"
	verify_file "seq/$i" 0 4096 || exit_failed "data of seq/$i"
done

pass
