#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Read error: zone offline (remount-ro)" "$@"

require_breakable_zones
mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
expect_log "seq/0: "
force_zone offline seq/0 || exit_failed "offline"
zio "open $SEQ0 rdonly" "!EIO pread 0 4096" "!EPERM pread 0 4096" || exit_failed "read"
expect_file seq/0 0 0 || exit_failed "file"
fs_is_read_only || exit_failed "the file system is not read-only"

pass
