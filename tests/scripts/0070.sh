#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sizes of conventional files" "$@"

require_cnv_files
mount_zonefs || exit_failed "mount"
[[ $(find "$MNT/cnv" -type f -printf '%s %b\n' | sort --unique) == "$ZONE_SIZE $((ZONE_SIZE / 512))" ]] ||
	exit_failed "size or blocks"
[[ $(stat --format=%o "$CNV0") == "$BS" ]] || exit_failed "st_blksize"

pass
