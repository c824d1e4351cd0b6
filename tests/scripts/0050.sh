#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Permissions of files, default" "$@"

mount_zonefs || exit_failed "mount"
[[ $(find "$MNT" -type f -printf '%m %n\n' | sort --unique) == "640 1" ]] || exit_failed "mode or links"

pass
