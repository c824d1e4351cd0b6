#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Names, as a user" "$@"

mount_zonefs || exit_failed "mount"
before=$(snapshot)
# Kernel zonefs answers ENOENT from its look-up; above FUSE the kernel checks the directory's permissions first.
zio "user 1000 1000" "!EACCES open $MNT/seq/new wronly,creat" "!EACCES mkdir $MNT/new" "!EACCES symlink x $MNT/seq/new" \
	"!EACCES mknod $MNT/seq/new fifo" "!ENOENT open $MNT/seq/new rdonly" "!EACCES rename $SEQ0 $MNT/seq/1" ||
	exit_failed "as a user"
zio "=yes access $MNT/seq x" "=yes access $MNT w" "=yes access $MNT/seq w" "user 1000 1000" "=yes access $MNT/seq r" \
	"=no access $MNT/seq w" "=no access $SEQ0 r" || exit_failed "access"
expect_unchanged "$before" || exit_failed "something changed"

pass
