#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "copy_file_range with conventional files" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
zio "open $CNV0 rdwr" "=65536 pwrite 0 65536" "open $SEQ0 rdwr,direct" "=65536 copy 0 0 0 65536" "verify 0 65536" || exit_failed "cnv to seq"
zio "open $SEQ0 rdonly" "open $CNV0 rdwr" "=100 copy 0 1000 200000 100" "verify 200000 100 at=1000" "=65536 copy 0 0 300000 65536" \
	"verify 300000 65536 at=0" "!EFBIG copy 0 0 $ZONE_SIZE 4096" || exit_failed "seq to cnv"
((NR_CNV < 2)) || zio "open $CNV0 rdonly" "open $MNT/cnv/1 rdwr" "=5000 copy 0 100 7000 5000" "verify 7000 5000 at=100" || exit_failed "cnv to cnv"

pass
