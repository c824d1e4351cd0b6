#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Write error: zone finished (repair)" "$@"

check_write_error repair finish 640 "$CAP"

pass
