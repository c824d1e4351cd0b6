#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: write pointer moved forward (zone-ro)" "$@"

check_write_error zone-ro forward 440 1048576

pass
