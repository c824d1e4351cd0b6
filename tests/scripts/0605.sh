#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone reset (remount-ro)" "$@"

check_write_error remount-ro reset 640 0

pass
