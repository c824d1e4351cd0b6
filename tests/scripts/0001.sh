#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mkfs: superblock, defaults" "$@"

[[ $(head --bytes=4 "$SB_FILE") == SFOZ ]] || exit_failed "magic on disk"
zio "=1515144787 sb $SB_FILE magic" "=good sb $SB_FILE crc" "=zero sb $SB_FILE reserved" "=0 sb $SB_FILE features" ||
	exit_failed "superblock"
[[ $(zio "sb $SB_FILE uuid") =~ [1-9a-f] ]] || exit_failed "no uuid"
first=$(zio "sb $SB_FILE uuid")
format_device || exit_failed "mkfs"
[[ $(zio "sb $SB_FILE uuid") != "$first" ]] || exit_failed "the same uuid again"

pass
