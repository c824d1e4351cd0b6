#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: mapped pages past the end" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
zio "open $SEQ0 rdonly" "mmap 16384 private r" "=ok touch 0" "=ok touch 8191" "=SIGBUS touch 8192" "=SIGBUS touch 12288" || exit_failed "past the end"
zio "open $SEQ0 rdonly" "mmap 8192 private r" "peek 0 8192" "truncate $SEQ0 0" "=SIGBUS touch 0" || exit_failed "after a reset"

pass
