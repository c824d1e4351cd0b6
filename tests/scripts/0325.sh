#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: mmap" "$@"

# Without passthrough: with it, a reader can map shared what the kernel reads for him (tests/fuse/test_passthrough.py).
mount_zonefs -o passthrough=off || exit_failed "mount"
write_seq seq/0 0 16384 || exit_failed "write"
before=$(snapshot)
zio "open $SEQ0 rdonly" "mmap 16384 private r" "peek 0 16384" "mmap 4096 private rw" "peek 0 4096" "poke 0 4096 seed=2" "peek 0 4096 seed=2" ||
	exit_failed "private"
zio "open $SEQ0 rdwr" "mmap 16384 private rw" "poke 100 100 seed=2" "verify 0 16384" || exit_failed "private of a writer"
# A file that FUSE serves by direct I/O cannot be mapped shared (kernel zonefs: EINVAL, or allowed for readers only).
zio "open $SEQ0 rdonly" "!ENODEV mmap 4096 shared r" "!EACCES mmap 4096 shared rw" "open $SEQ0 rdwr" "!ENODEV mmap 4096 shared r" \
	"!ENODEV mmap 4096 shared rw" "open $SEQ0 wronly" "!EACCES mmap 4096 private r" || exit_failed "shared"
expect_unchanged "$before" || exit_failed "something changed"

pass
