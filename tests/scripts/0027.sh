#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: refused options" "$@"

for option in errors=foo errors errors= explicit-open=1 noexplicit-open uid=1000 nonesuch " errors=repair"; do
	expect_usage_error "${option%%=*}" zonefs_py mount "$DEV" "$MNT" --log-file "$TEST_DIR/refused.log" -o "$option" ||
		exit_failed "-o '$option'"
	is_mounted && exit_failed "mounted in spite of -o '$option'"
done
mount_zonefs || exit_failed "mount"

pass
