#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mkfs: superblock (owner and permissions)" "$@"

format_device -o uid=1000,gid=2000,perm=600 || exit_failed "mkfs"
zio "=good sb $SB_FILE crc" "=14 sb $SB_FILE features" "=1000 sb $SB_FILE uid" "=2000 sb $SB_FILE gid" \
	"=384 sb $SB_FILE perm" "=zero sb $SB_FILE reserved" || exit_failed "superblock"
format_device -o gid=5 || exit_failed "mkfs -o gid"
zio "=4 sb $SB_FILE features" "=5 sb $SB_FILE gid" || exit_failed "superblock with gid only"

pass
