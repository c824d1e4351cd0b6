#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: data survives umount" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
for ((i = 0; i < NR_CNV; i++)); do
	zio "open $MNT/cnv/$i wronly" "=12345 pwrite 1000 12345 seed=$((i + 1))" || exit_failed "write cnv/$i"
done
mount_again || exit_failed "mount again"
for ((i = 0; i < NR_CNV; i++)); do
	zio "open $MNT/cnv/$i rdonly" "zeros 0 1000" "verify 1000 12345 seed=$((i + 1))" "zeros 13345 10000" || exit_failed "cnv/$i"
done

pass
