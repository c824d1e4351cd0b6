#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: threads that append" "$@"

mount_zonefs || exit_failed "mount"
zio "open $SEQ0 rdwr,direct,append" "appenders 4 32 8192" "records 128 8192" || exit_failed "appended records"
expect_size seq/0 $((128 * 8192)) || exit_failed "size"

pass
