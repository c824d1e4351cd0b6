#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: host fails the write (zone-ro)" "$@"

check_write_error zone-ro host 440 1048576

pass
