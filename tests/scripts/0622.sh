#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone offline (zone-ro)" "$@"

check_write_error zone-ro offline 0 0

pass
