#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: reopening through /proc/self/fd" "$@"

# Without passthrough: with it, a file that is read cannot be opened to read and write but by its name (ESTALE).
mount_zonefs -o passthrough=off || exit_failed "mount"
zio "open $SEQ0 rdonly" "reopen wronly,direct" "=4096 pwrite 0 4096" "@0 verify 0 4096" "@0 reopen rdwr,trunc" "@0 =0 size" || exit_failed "reopen"
expect_size seq/0 0 || exit_failed "size"

pass
