#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: refused options" "$@"

for option in errors=foo errors errors= explicit-open=1 noexplicit-open uid=1000 nonesuch " errors=repair"; do
	expect_no_mount "${option%%=*}" -o "$option" || exit_failed "-o '$option'"
done
mount_zonefs || exit_failed "mount"

pass
