#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Creating names over existing ones" "$@"

mount_zonefs || exit_failed "mount"
before=$(snapshot)
touch "$TEST_DIR/other"
zio "!EEXIST open $SEQ0 rdwr,creat,excl" "!EEXIST mkdir $SEQ0" "!EEXIST mkdir $MNT/seq" "!EEXIST symlink x $SEQ0" \
	"!EEXIST mknod $SEQ0 reg" "!EEXIST link $MNT/seq/1 $SEQ0" "!EXDEV link $TEST_DIR/other $MNT/seq/new" \
	"!EEXIST rename $MNT/seq/1 $SEQ0 flags=noreplace" || exit_failed "over existing names"
expect_unchanged "$before" || exit_failed "something changed"

pass
