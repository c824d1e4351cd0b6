#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional files: dd, cp, cmp" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
head --bytes="$ZONE_SIZE" /dev/urandom >"$TEST_DIR/data"
dd if="$TEST_DIR/data" of="$CNV0" bs=64k conv=notrunc,fsync status=none || exit_failed "dd"
cmp "$TEST_DIR/data" "$CNV0" || exit_failed "data after dd"
cp "$CNV0" "$TEST_DIR/copy" && cmp "$TEST_DIR/data" "$TEST_DIR/copy" || exit_failed "cp"
dd if="$CNV0" of="$TEST_DIR/copy" bs=1M iflag=direct status=none && cmp "$TEST_DIR/data" "$TEST_DIR/copy" || exit_failed "dd, direct"

pass
