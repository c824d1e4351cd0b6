#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: torn block after a crash" "$@"

require_emulated "a write is whole blocks"
mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
unmount_zonefs || exit_failed "umount"
head --bytes=100 /dev/urandom >>"$(backing seq/0)"
expect_log "seq-0*$(zone_of seq/0)"
mount_zonefs || exit_failed "mount"
expect_size seq/0 8192 || exit_failed "size is not cut down to the block"
zio "open $SEQ0 rdwr,direct" "verify 0 8192" "=$BS pwrite 8192 $BS" "verify 8192 $BS" || exit_failed "write on"

pass
