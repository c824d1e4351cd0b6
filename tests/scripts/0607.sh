#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone reset (zone-offline)" "$@"

check_write_error zone-offline reset 0 0

pass
