#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: appending is refused" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
before=$(snapshot)
zio "open $CNV0 wronly,append" "!EINVAL write 100 at=0" "!EINVAL pwrite 0 4096" "=0 write 0 at=0" "open $CNV0 wronly,append,direct" \
	"!EINVAL write 4096 at=0" || exit_failed "O_APPEND"
# RWF_APPEND does not reach a FUSE server: it sees a write at the end of the file (kernel zonefs: EINVAL).
zio "open $CNV0 wronly" "!EFBIG pwrite 0 100 rwf=append" "open $CNV0 wronly,direct" "!EFBIG pwrite 0 4096 rwf=append" ||
	exit_failed "RWF_APPEND"
zio "open $CNV0 wronly" "setfl append" "!EINVAL write 100" || exit_failed "F_SETFL"
expect_unchanged "$before" || exit_failed "something changed"

pass
