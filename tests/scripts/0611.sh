#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone finished (zone-offline)" "$@"

check_write_error zone-offline finish 0 0

pass
