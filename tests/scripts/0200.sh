#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Conventional file: open" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
before=$(snapshot)
for access in rdonly wronly rdwr; do
	for flags in "" ,direct ,append ,direct,append ,sync ,dsync ,nonblock ,noatime ,nofollow ,excl ,creat; do
		zio "open $CNV0 $access$flags" || exit_failed "$access$flags"
	done
	zio "!EPERM open $CNV0 $access,trunc" || exit_failed "$access,trunc"
done
zio "open $CNV0 accmode3" "open $CNV0 path" "!EEXIST open $CNV0 rdwr,creat,excl" "!ENOTDIR open $CNV0 rdonly,directory" ||
	exit_failed "other flags"
expect_unchanged "$before" || exit_failed "something changed"

pass
