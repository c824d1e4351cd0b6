#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone read-only (zone-offline)" "$@"

check_write_error zone-offline readonly 0 0

pass
