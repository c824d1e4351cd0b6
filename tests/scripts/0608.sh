#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone reset (repair)" "$@"

check_write_error repair reset 640 0

pass
