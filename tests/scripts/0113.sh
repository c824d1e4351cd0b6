#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Flushing" "$@"

mount_zonefs || exit_failed "mount"
zio "open $SEQ0 rdwr,direct" fsync fdatasync syncfs sync_file_range "=4096 pwrite 0 4096" fsync fdatasync syncfs sync_file_range ||
	exit_failed "read-write"
zio "open $SEQ0 rdonly" fsync fdatasync syncfs sync_file_range || exit_failed "read-only descriptor"
sync "$SEQ0" && sync --file-system "$SEQ0" && sync || exit_failed "sync"
# The data is on the device, not only on its way.
cmp --bytes=4096 "$SEQ0" <(zone_data seq/0 4096) || exit_failed "backing file"

pass
