#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: truncate" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
zio "open $CNV0 wronly" "=8192 pwrite 0 8192" || exit_failed "write"
before=$(snapshot)
for size in 0 100 4096 $((ZONE_SIZE - 1)) "$ZONE_SIZE"; do
	zio "!EPERM truncate $CNV0 $size" "open $CNV0 rdwr" "!EPERM ftruncate $size" || exit_failed "truncate to $size"
done
zio "!EFBIG truncate $CNV0 $((FILE_MAX + 1))" "!EFBIG truncate $CNV0 0x4000000000000000" "!EINVAL truncate $CNV0 -1" \
	"open $CNV0 rdonly" "!EINVAL ftruncate 0" || exit_failed "refusals of another kind"
expect_unchanged "$before" || exit_failed "something changed"
verify_file cnv/0 0 8192 || exit_failed "data"

pass
