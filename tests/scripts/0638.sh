#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional zone read-only or offline" "$@"

require_cnv_files
require_emulated "conventional zones cannot be made to fail"
mount_zonefs || exit_failed "mount"
zio "open $CNV0 wronly" "=8192 pwrite 0 8192" fsync || exit_failed "write"
expect_log "cnv/0: "
force_zone readonly cnv/0 || exit_failed "readonly"
zio "open $CNV0 rdwr,direct" "verify 0 8192" "!EIO pwrite 0 4096 seed=2" || exit_failed "read-only"
force_zone online cnv/0 || exit_failed "online"
mount_again || exit_failed "mount again"
verify_file cnv/0 0 8192 || exit_failed "data"
force_zone offline cnv/0 || exit_failed "offline"
zio "open $CNV0 rdonly,direct" "!EIO pread 0 4096" || exit_failed "offline"

pass
