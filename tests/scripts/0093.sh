#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Renaming is refused" "$@"

mount_zonefs || exit_failed "mount"
touch "$TEST_DIR/other"
before=$(snapshot)
zio "!EPERM rename $SEQ0 $MNT/seq/1" "!EPERM rename $SEQ0 $MNT/seq/1 flags=exchange" "rename $SEQ0 $SEQ0" \
	"!ENOENT rename $SEQ0 $MNT/seq/new" "!ENOENT rename $MNT/seq $MNT/new" "!EXDEV rename $SEQ0 $TEST_DIR/new" \
	"!EXDEV rename $TEST_DIR/other $MNT/seq/new" "!EBUSY rename $MNT $TEST_DIR/new" || exit_failed "rename"
expect_unchanged "$before" || exit_failed "something changed"
[[ ! -e $TEST_DIR/new ]] || exit_failed "something was moved out"

pass
