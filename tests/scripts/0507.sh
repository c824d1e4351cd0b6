#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Active limit: write beyond it (errors=zone-offline)" "$@"

require_limits
check_active_limit zone-offline

pass
