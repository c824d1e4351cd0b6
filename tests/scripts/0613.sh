#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: host fails the write (remount-ro)" "$@"

check_write_error remount-ro host 640 1048576

pass
