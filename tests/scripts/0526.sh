#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "explicit-open: limit on active zones only" "$@"

DEV=$TEST_DIR/active
create_small_device "$DEV" --max-active 6 && format_device || exit_failed "device"
mount_zonefs -o explicit-open || exit_failed "mount"
[[ $(counter max_wro_seq_files) == 0 && $(counter max_active_seq_files) == 6 ]] || exit_failed "limits"
zio_start
for i in 0 1 2 3 4 5; do
	zio_do "open $MNT/seq/$i wronly,direct" || exit_failed "open seq/$i"
done
expect_counters 6 6 || exit_failed "counters"
zio_do "!EOVERFLOW open $MNT/seq/6 wronly,direct" || exit_failed "the seventh"
expect_counters 6 6 || exit_failed "counters after the refusal"
zio_stop || exit_failed "close"

pass
