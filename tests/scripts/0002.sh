#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mkfs: existing and foreign content" "$@"

require_changeable_superblock

before=$(device_digest)
expect_refused "zonefs" zonefs_py mkfs "$DEV" || exit_failed "formats a formatted device without -f"
[[ $(device_digest) == "$before" ]] || exit_failed "a refused mkfs changed the device"

printf SWAPSPACE2 | dd of="$SB_FILE" bs=1 seek=4086 conv=notrunc,fsync status=none
zio "sbset $SB_FILE 0:00000000 crc=keep" || exit_failed "sbset"
before=$(device_digest)
expect_refused "swap" zonefs_py mkfs "$DEV" || exit_failed "formats a swap area without -f"
[[ $(device_digest) == "$before" ]] || exit_failed "a refused mkfs changed the device"

format_device || exit_failed "mkfs -f"
zio "=good sb $SB_FILE crc" "=zero sb $SB_FILE reserved" || exit_failed "superblock"

pass
