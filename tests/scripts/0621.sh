#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone offline (remount-ro)" "$@"

check_write_error remount-ro offline 0 0

pass
