#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Open limit: truncate to the capacity" "$@"

require_limits
mount_zonefs || exit_failed "mount"
for ((i = 0; i < MAX_OPEN; i++)); do
	write_seq "seq/$i" 0 4096 || exit_failed "write seq/$i"
done
# The device closes one of the implicitly open zones.
zio "truncate $MNT/seq/$MAX_OPEN $CAP" || exit_failed "an empty zone"
expect_conditions full "seq/$MAX_OPEN" || exit_failed "condition"
for ((i = 0; i < MAX_OPEN; i++)); do
	verify_file "seq/$i" 0 4096 || exit_failed "seq/$i"
done

pass
