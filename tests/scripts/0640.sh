#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Host disk full in the middle of a write" "$@"

require_emulated "the host writes no files for it"
mkdir "$TEST_DIR/host"
mount -t tmpfs -o size=24M tmpfs "$TEST_DIR/host" || exit_failed "tmpfs"
cp --archive "$DEV" "$TEST_DIR/host/dev" || exit_failed "cp"
DEV=$TEST_DIR/host/dev
mount_zonefs -o errors=repair || exit_failed "mount"
write_seq seq/0 0 1048576 || exit_failed "write"
# All but 64 KiB of the host's space go.
free=$(($(stat --file-system --format='%a * %S' "$TEST_DIR/host")))
head --bytes=$((free - 65536)) /dev/zero >"$TEST_DIR/host/filler" || exit_failed "filler"
expect_log "seq/0: "
expect_log "No space left"
zio_start
zio_do "open $SEQ0 rdwr,direct" || exit_failed "open"
# Either a short count first and the error with the next write, or the error at once: but the size tells what is there.
zio_ask "pwrite 1048576 262144" || exit_failed "write"
size=$(size_of seq/0)
case $ZIO_REPLY in
"! ENOSPC") ;;
"= "*) ((size == 1048576 + ${ZIO_REPLY#= })) || exit_failed "count and size differ" ;;
*) exit_failed "write" ;;
esac
expect_size seq/0 "$size" || exit_failed "the size is not the write pointer"
((size % BS == 0)) || exit_failed "part of a block was written"
zio_do "!ENOSPC pwrite $size 262144" || exit_failed "the next write"
size=$(size_of seq/0)
expect_size seq/0 "$size" || exit_failed "the size is not the write pointer"
zio_do "verify 0 $size" || exit_failed "data"
rm "$TEST_DIR/host/filler" || exit_failed "rm"
zio_do "=262144 pwrite $size 262144" "verify 0 $((size + 262144))" || exit_failed "write when there is space again"
zio_stop || exit_failed "close"
unmount_zonefs || exit_failed "umount"
[[ $(stat --format=%s "$(backing seq/0)") == $((size + 262144)) ]] || exit_failed "size of the zone"

pass
