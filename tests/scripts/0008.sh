#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mkfs: sequential zone 0 is finished" "$@"

require_seq_zone_0
[[ $(written_in_zone 0) == "$CAP" ]] || exit_failed "size of zone 0"
[[ $(zonefs_py report "$DEV" --format json | json zones 0 condition) == full ]] || exit_failed "condition of zone 0"
format_device || exit_failed "mkfs again"
[[ $(written_in_zone 0) == "$CAP" ]] || exit_failed "size of zone 0 after the second mkfs"

pass
