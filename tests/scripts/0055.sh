#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Owner's access" "$@"

mount_zonefs || exit_failed "mount"
zio "chown $SEQ0 1000 1000" "chmod $SEQ0 600" || exit_failed "chown, chmod"
zio "user 1000 1000" "open $SEQ0 rdwr,direct" "=4096 pwrite 0 4096" "verify 0 4096" "truncate $SEQ0 $CAP" "truncate $SEQ0 0" \
	"=0 size" "chmod $SEQ0 400" "!EPERM chown $SEQ0 1001 1000" "utime $SEQ0 1000 2000" || exit_failed "owner"
zio "user 1000 1000" "!EACCES truncate $SEQ0 0" "!EACCES open $SEQ0 wronly" "open $SEQ0 rdonly" || exit_failed "mode 0400"
[[ $(stat --format='%a %u %g' "$SEQ0") == "400 1000 1000" ]] || exit_failed "attributes"

pass
