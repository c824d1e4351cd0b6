#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Blocks of sequential files are the zone's capacity" "$@"

mount_zonefs || exit_failed "mount"
for size in 0 4096 "$CAP"; do
	[[ $(stat --format='%s %b %o' "$SEQ0") == "$size $((CAP / 512)) $BS" ]] || exit_failed "with size $size"
	if ((size == 0)); then write_seq seq/0 0 4096; else zio "truncate $SEQ0 $CAP"; fi || exit_failed "write"
done

pass
