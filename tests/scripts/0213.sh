#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: buffered and direct I/O agree" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
zio "open $CNV0 rdwr" "open $CNV0 rdwr,direct" "@0 =8192 pwrite 0 8192" "@1 verify 0 8192" "@1 =4096 pwrite 4096 4096 seed=2" \
	"@0 verify 0 4096" "@0 verify 4096 4096 seed=2" "@0 =10 pwrite 4100 10 seed=3" || exit_failed "read what the other wrote"
zio "open $CNV0 rdonly" "verify 4096 4 seed=2" "verify 4100 10 seed=3" "verify 4110 4082 seed=2" || exit_failed "data"

pass
