#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "explicit-open: active zones exhausted at open" "$@"

require_limits
mount_zonefs -o explicit-open || exit_failed "mount"
for ((i = 0; i < MAX_ACTIVE; i++)); do
	write_seq "seq/$i" 0 4096 || exit_failed "write seq/$i"
done
expect_counters 0 "$MAX_ACTIVE" || exit_failed "counters"
before=$(snapshot)
zio "!EOVERFLOW open $MNT/seq/$MAX_ACTIVE wronly,direct" "open $MNT/seq/$MAX_ACTIVE rdonly" || exit_failed "open"
expect_unchanged "$before" || exit_failed "something changed"
expect_counters 0 "$MAX_ACTIVE" || exit_failed "counters after the refusal"
zio "truncate $SEQ0 0" "open $MNT/seq/$MAX_ACTIVE wronly,direct" "=4096 pwrite 0 4096" || exit_failed "there is room after a reset"

pass
