#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Setuid and setgid bits over write and truncate" "$@"

mount_zonefs || exit_failed "mount"
zio "chown $SEQ0 1000 1000" "chmod $SEQ0 6755" || exit_failed "chown, chmod"
zio "user 1000 1000" "open $SEQ0 wronly,direct" "=4096 pwrite 0 4096" || exit_failed "write"
[[ $(mode_of seq/0) == 6755 ]] || exit_failed "a direct write keeps them"
zio "user 1000 1000" "truncate $SEQ0 0" || exit_failed "truncate"
[[ $(mode_of seq/0) == 755 ]] || exit_failed "truncate clears them"

pass
