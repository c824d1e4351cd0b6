#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone read-only (zone-ro)" "$@"

check_write_error zone-ro readonly 440 1048576

pass
