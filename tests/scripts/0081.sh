#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Long names" "$@"

mount_zonefs || exit_failed "mount"
zio "!ENOENT open $MNT/seq/1234567890123456 rdonly" "!ENAMETOOLONG open $MNT/seq/12345678901234567 rdonly" \
	"!ENAMETOOLONG open $MNT/abcdefghijklmnopq rdonly" "!ENAMETOOLONG mkdir $MNT/abcdefghijklmnopq" \
	"!ENAMETOOLONG open $MNT/$(printf 'x%.0s' {1..300}) rdonly" || exit_failed "long names"

pass
