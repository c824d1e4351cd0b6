#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Zone 0 is hidden" "$@"

mount_zonefs || exit_failed "mount"
[[ -z $(find "$MNT" -inum 0) ]] || exit_failed "a file of zone 0"
before=$(head --bytes="$ZONE_SIZE" "$SB_FILE" | sha256sum)
for ((i = 0; i < NR_CNV; i++)); do
	zio "open $MNT/cnv/$i wronly" "=$ZONE_SIZE pwrite 0 $ZONE_SIZE" || exit_failed "write cnv/$i"
done
for i in 0 $((NR_SEQ - 1)); do
	zio "open $MNT/seq/$i wronly,direct" "=4096 pwrite 0 4096" || exit_failed "write seq/$i"
done
[[ $(head --bytes="$ZONE_SIZE" "$SB_FILE" | sha256sum) == "$before" ]] || exit_failed "zone 0 changed"

pass
