#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone finished (remount-ro)" "$@"

check_write_error remount-ro finish 640 1048576

pass
