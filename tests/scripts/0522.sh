#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "explicit-open: files open for writing are limited" "$@"

require_limits
mount_zonefs -o explicit-open || exit_failed "mount"
fill seq/9 || exit_failed "fill"
zio_start
for ((i = 0; i < MAX_OPEN; i++)); do
	zio_do "open $MNT/seq/$i wronly,direct" || exit_failed "open seq/$i"
done
before=$(snapshot)
zio_do "!EBUSY open $MNT/seq/8 wronly,direct" "!EBUSY open $MNT/seq/8 rdwr" "!EBUSY open $MNT/seq/9 wronly" || exit_failed "beyond the limit"
zio_do "!EBUSY open $MNT/seq/9 wronly,trunc" || exit_failed "O_TRUNC beyond the limit"
expect_unchanged "$before" || exit_failed "a refused open changed something"
zio_do "open $MNT/seq/8 rdonly" "open $SEQ0 rdwr,direct" || exit_failed "readers and files that are open already"
((NR_CNV == 0)) || zio_do "open $CNV0 wronly" || exit_failed "conventional files"
zio_do "open $MNT/seq/9 rdonly,trunc" || exit_failed "O_TRUNC of a reader"
expect_size seq/9 0 || exit_failed "O_TRUNC of a reader truncates"
zio_do "@1 close" "open $MNT/seq/8 wronly,direct" || exit_failed "there is room after a close"
zio_stop || exit_failed "close"

pass
