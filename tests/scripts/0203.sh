#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: buffered writes anywhere" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
zio "open $CNV0 rdwr" "=$ZONE_SIZE pwrite 0 $ZONE_SIZE" "verify 0 $ZONE_SIZE" "=100 pwrite 5000 100 seed=2" "=1 pwrite 0 1 seed=3" \
	"=5000 pwrite $((ZONE_SIZE - 5000)) 5000 seed=4" "=300000 pwrite 1000001 300000 seed=5 iov=1,99999,200000" fsync || exit_failed "write"
zio "open $CNV0 rdonly" "verify 0 1 seed=3" "verify 1 4999" "verify 5000 100 seed=2" "verify 5100 994901" \
	"verify 1000001 300000 seed=5" "verify 1300001 $((ZONE_SIZE - 1305001))" "verify $((ZONE_SIZE - 5000)) 5000 seed=4" ||
	exit_failed "data"
[[ $(size_of cnv/0) == "$ZONE_SIZE" ]] || exit_failed "size"
((NR_CNV < 2)) || zio "open $MNT/cnv/1 rdonly" "zeros 0 $ZONE_SIZE" || exit_failed "another file changed"

pass
