#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Open limit: the device closes zones by itself" "$@"

require_limits
mount_zonefs || exit_failed "mount"
for ((i = 0; i <= MAX_OPEN; i++)); do
	write_seq "seq/$i" 0 4096 || exit_failed "write seq/$i"
done
expect_counters 0 $((MAX_OPEN + 1)) || exit_failed "counters"
[[ $(conditions seq/0 seq/1 seq/2 seq/3 seq/4 | tr ' ' '\n' | sort | uniq --count | xargs) == "1 closed $MAX_OPEN implicit-open" ]] ||
	exit_failed "conditions"
for ((i = 0; i <= MAX_OPEN; i++)); do
	write_seq "seq/$i" 4096 4096 && verify_file "seq/$i" 0 8192 || exit_failed "write on to seq/$i"
done

pass
