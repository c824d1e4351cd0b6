#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Counters: files open for writing" "$@"

mount_zonefs || exit_failed "mount"
zio_start
zio_do "open $SEQ0 wronly" "open $SEQ0 rdwr,direct" "open $MNT/seq/1 wronly,direct,append" || exit_failed "open"
expect_counters 2 0 || exit_failed "files, not descriptors, are counted"
zio_do "open $MNT/seq/2 rdonly" "open $MNT/seq/3 path" "open $MNT/seq/4 accmode3" || exit_failed "open"
((NR_CNV == 0)) || zio_do "open $CNV0 rdwr" || exit_failed "open cnv/0"
expect_counters 2 0 || exit_failed "neither readers nor conventional files are counted"
zio_do "@1 dup" "@1 close" "@0 close" || exit_failed "close"
expect_counters 2 0 || exit_failed "a duplicated descriptor keeps the file open"
zio_stop || exit_failed "close"
closed() { [[ $(counter nr_wro_seq_files) == 0 ]]; }
wait_until "all are closed" closed || exit_failed "after close"

pass
