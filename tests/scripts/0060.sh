#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Owner of files, default" "$@"

mount_zonefs || exit_failed "mount"
[[ $(find "$MNT" -printf '%U %G\n' | sort --unique) == "0 0" ]] || exit_failed "owner"

pass
