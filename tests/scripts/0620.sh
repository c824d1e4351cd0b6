#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone read-only (repair)" "$@"

check_write_error repair readonly 440 1048576

pass
