#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: write pointer moved forward (remount-ro)" "$@"

check_write_error remount-ro forward 640 1048576

pass
