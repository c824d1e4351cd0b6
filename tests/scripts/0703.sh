#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "sendfile" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 65536 || exit_failed "write"
zio "open $SEQ0 rdonly" "open $MNT/seq/1 rdwr,direct" "=65536 sendfile 0 0 65536" "verify 0 65536" "=65536 lseek 0 cur" \
	"=32768 sendfile 0 32768 65536" "verify 65536 32768 at=32768" || exit_failed "seq to seq"
expect_size seq/1 98304 || exit_failed "size"
zio "open $SEQ0 rdonly" "open $TEST_DIR/out rdwr,creat" "=65536 sendfile 0 - 100000" "verify 0 65536" || exit_failed "to another file system"
zio "open $TEST_DIR/out rdonly" "open $MNT/seq/2 rdwr,direct" "=65536 sendfile 0 - 100000" "verify 0 65536" || exit_failed "from another file system"
before=$(snapshot)
zio "open $SEQ0 rdonly" "open $MNT/seq/1 wronly,direct" "!EINVAL sendfile 0 0 4096" "open $MNT/seq/1 wronly" "lseek 98304" "!EIO sendfile 0 0 4096" ||
	exit_failed "refusals"
expect_unchanged "$before" || exit_failed "something changed"

pass
