#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Creating names is refused" "$@"

mount_zonefs || exit_failed "mount"
before=$(snapshot)
touch "$TEST_DIR/other"
for dir in "$MNT" "$MNT/seq"; do
	zio "!ENOENT open $dir/new rdonly" "!ENOENT open $dir/new wronly,creat" "!ENOENT open $dir/new rdwr,creat,excl" \
		"!ENOENT mkdir $dir/new" "!ENOENT mknod $dir/new reg" "!ENOENT mknod $dir/new fifo" "!ENOENT mknod $dir/new chr" \
		"!ENOENT symlink target $dir/new" "!ENOENT link $SEQ0 $dir/new" "!ENOENT bind $dir/new" \
		"!ENOENT rename $SEQ0 $dir/new" "!ENOENT rename $SEQ0 $dir/new flags=noreplace" "!EOPNOTSUPP open $dir rdwr,tmpfile" ||
		exit_failed "in $dir"
done
zio "!ENOENT open $MNT/seq/$NR_SEQ wronly,creat" || exit_failed "the number after the last"
expect_unchanged "$before" || exit_failed "something changed"

pass
