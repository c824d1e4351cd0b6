#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Counters of a degraded file" "$@"

require_breakable_zones
mount_zonefs -o errors=zone-offline || exit_failed "mount"
write_seq seq/0 0 8192 && write_seq seq/1 0 8192 || exit_failed "write"
force_zone offline seq/0 || exit_failed "offline"
expect_log "seq/0: "
zio_start
zio_do "open $SEQ0 rdwr,direct" || exit_failed "open"
expect_counters 1 2 || exit_failed "before"
zio_do "!EIO pwrite 8192 4096" || exit_failed "write"
expect_counters 1 1 || exit_failed "an offline zone is not active"
zio_stop || exit_failed "close"
wait_until "closed" expect_counters 0 1 || exit_failed "after close"
expect_size_mismatch seq/0

pass
