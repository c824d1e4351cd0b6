#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone read-only (remount-ro)" "$@"

check_write_error remount-ro readonly 440 1048576

pass
