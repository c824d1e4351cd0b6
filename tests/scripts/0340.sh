#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: open" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 4096 || exit_failed "write"
before=$(snapshot)
for access in rdonly wronly rdwr accmode3; do
	for flags in "" ,direct ,append ,direct,append ,sync ,dsync ,nonblock ,noatime ,nofollow ,excl ,creat; do
		zio "open $SEQ0 $access$flags" || exit_failed "$access$flags"
	done
done
zio "open $SEQ0 path" "!EEXIST open $SEQ0 rdwr,creat,excl" "!ENOTDIR open $SEQ0 rdonly,directory" "!ENOTDIR open $SEQ0 rdwr,tmpfile" \
	"!ENOENT open $MNT/seq/new rdonly" || exit_failed "other flags"
expect_unchanged "$before" || exit_failed "something changed"

pass
