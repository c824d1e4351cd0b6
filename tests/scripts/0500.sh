#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Counters: limits" "$@"

mount_zonefs || exit_failed "mount"
[[ $(counter max_wro_seq_files) == "$MAX_OPEN" ]] || exit_failed "max_wro_seq_files"
[[ $(counter max_active_seq_files) == "$MAX_ACTIVE" ]] || exit_failed "max_active_seq_files"
expect_counters 0 0 || exit_failed "a fresh file system"

pass
