#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: host fails the write (zone-offline)" "$@"

check_write_error zone-offline host 0 0

pass
