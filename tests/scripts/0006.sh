#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mkfs: refused options" "$@"

before=$(device_digest)
for option in foo uid=-1 uid=4294967295 uid=x gid= perm=9 perm=1777 aggr_cnv=1; do
	expect_usage_error "${option%%=*}" format_device -o "$option" || exit_failed "-o $option"
done
expect_refused "$TEST_DIR/absent" zonefs_py mkfs "$TEST_DIR/absent" || exit_failed "absent device"
expect_refused "$TEST_DIR/mnt" zonefs_py mkfs "$TEST_DIR/mnt" || exit_failed "not a device"
[[ $(device_digest) == "$before" ]] || exit_failed "a refused mkfs changed the device"

pass
