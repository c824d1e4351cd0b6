#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: write pointer moved forward (zone-offline)" "$@"

check_write_error zone-offline forward 0 0

pass
