#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Block and file counts of statfs" "$@"

mount_zonefs || exit_failed "mount"
seq_bytes=$(((NR_SEQ - 1) * CAP + (LAST_SIZE < CAP ? LAST_SIZE : CAP)))
expect_statfs $((NR_CNV * ZONE_SIZE + seq_bytes)) "$seq_bytes" $((NR_CNV + NR_SEQ + (NR_CNV ? 2 : 1))) ||
	exit_failed "statfs"

pass
