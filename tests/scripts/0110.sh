#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Extended attributes" "$@"

mount_zonefs || exit_failed "mount"
before=$(snapshot)
for path in "$SEQ0" "$MNT/seq" "$MNT"; do
	for name in user.a trusted.a security.a system.a plain; do
		zio "!EOPNOTSUPP setxattr $path $name value" "!EOPNOTSUPP getxattr $path $name" "!EOPNOTSUPP removexattr $path $name" ||
			exit_failed "$name of $path"
	done
	zio "=none listxattr $path" || exit_failed "listxattr $path"
done
expect_unchanged "$before" || exit_failed "something changed"

pass
