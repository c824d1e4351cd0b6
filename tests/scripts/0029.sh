#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "remount: read-only and read-write" "$@"

mount_zonefs -o errors=repair || exit_failed "mount"
write_seq seq/0 0 4096 || exit_failed "write"
zonefs_py mount "$DEV" "$MNT" -o remount,ro || exit_failed "remount,ro"
[[ $(findmnt --noheadings --output OPTIONS "$MNT") == ro,* && $(counter read_only) == true ]] || exit_failed "not read-only"
zio "!EROFS open $SEQ0 wronly,direct" "!EROFS truncate $SEQ0 0" "!EROFS chmod $SEQ0 600" "open $SEQ0 rdonly" "verify 0 4096" || exit_failed "read-only"
zonefs_py mount "$DEV" "$MNT" -o remount,rw || exit_failed "remount,rw"
[[ $(findmnt --noheadings --output OPTIONS "$MNT") == rw,* && $(counter read_only) == false ]] || exit_failed "not read-write"
write_seq seq/0 4096 4096 || exit_failed "write after remount,rw"

zio_start
zio_do "open $SEQ0 wronly,direct" || exit_failed "open"
expect_refused "busy" zonefs_py mount "$DEV" "$MNT" -o remount,ro || exit_failed "remount,ro with a writer"
[[ $(findmnt --noheadings --output OPTIONS "$MNT") == rw,* && $(counter read_only) == false ]] || exit_failed "a refused remount changed something"
zio_do "=4096 pwrite 8192 4096" || exit_failed "the writer writes on"
zio_stop || exit_failed "close"
[[ $(counter options) == *errors=repair* ]] || exit_failed "options that were not named are kept"

pass
