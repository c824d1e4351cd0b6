#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Read error: zone offline" "$@"

require_breakable_zones
mount_zonefs -o errors=repair || exit_failed "mount"
write_seq seq/0 0 8192 && write_seq seq/1 0 8192 || exit_failed "write"
expect_log "seq/[01]: "
force_zone offline seq/0 && force_zone offline seq/1 || exit_failed "offline"
expect_file seq/0 640 8192 || exit_failed "noticed without an access"
zio "open $SEQ0 rdonly" "!EIO pread 0 4096" "!EPERM pread 0 4096" || exit_failed "buffered read"
zio "open $MNT/seq/1 rdonly,direct" "!EIO pread 0 4096" "!EPERM pread 0 4096" || exit_failed "direct read"
expect_file seq/0 0 0 && expect_file seq/1 0 0 || exit_failed "files"
fs_is_writable || exit_failed "the file system went read-only"
expect_size_mismatch seq/0
expect_size_mismatch seq/1

pass
