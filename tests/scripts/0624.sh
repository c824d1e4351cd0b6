#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone offline (repair)" "$@"

check_write_error repair offline 0 0

pass
