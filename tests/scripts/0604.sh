#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: write pointer moved forward (repair)" "$@"

check_write_error repair forward 640 $((1048576 + BS))

pass
