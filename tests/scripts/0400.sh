#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file as swap is refused" "$@"

require_cnv_files
require_program mkswap util-linux
mount_zonefs || exit_failed "mount"
mkswap "$CNV0" >/dev/null || exit_failed "mkswap"
before=$(snapshot)
# FUSE has no block mapping (kernel zonefs: works).
expect_errno EINVAL zio "swapon $CNV0" || exit_failed "swapon"
! grep --quiet --fixed-strings "$CNV0" /proc/swaps || exit_failed "it is in use as swap"
expect_unchanged "$before" || exit_failed "something changed"
zio "open $CNV0 wronly" "=4096 pwrite 0 4096" || exit_failed "write afterwards"

pass
