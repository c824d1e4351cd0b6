#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: writes of no bytes" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 4096 && fill seq/1 || exit_failed "write"
before=$(snapshot)
# They never reach a FUSE server (kernel zonefs refuses them at the capacity, and buffered).
zio "open $SEQ0 wronly,direct" "=0 pwrite 0 0" "=0 pwrite 4096 0" "=0 pwrite 8192 0" "=0 pwrite $CAP 0" "open $SEQ0 wronly" "=0 pwrite 4096 0" \
	"open $MNT/seq/1 wronly,direct,append" "=0 write 0 at=0" || exit_failed "0 bytes"
expect_unchanged "$before" || exit_failed "something changed"

pass
