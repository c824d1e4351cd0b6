#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: lseek" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
zio "open $CNV0 rdwr" "=$ZONE_SIZE lseek 0 end" "=100 lseek 100" "=150 lseek 50 cur" "=$((ZONE_SIZE - 10)) lseek -10 end" \
	"!EINVAL lseek -1" "!EINVAL lseek $((-ZONE_SIZE - 1)) end" "!EINVAL lseek 0 9" "=100 lseek 100 data" "=$ZONE_SIZE lseek 100 hole" \
	"!ENXIO lseek $ZONE_SIZE data" "!ENXIO lseek $ZONE_SIZE hole" "!ENXIO lseek -1 data" || exit_failed "lseek"
zio "open $CNV0 rdwr" "lseek 5000" "=100 write 100" "=5100 lseek 0 cur" "verify 5000 100" || exit_failed "position after write"

pass
