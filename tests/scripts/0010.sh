#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mkzonefs: options of the upstream tool" "$@"

expect_refused "zonefs" "$MKZONEFS" "$DEV" || exit_failed "formats a formatted device without -f"
"$MKZONEFS" -f -v -o aggr_cnv,perm=0444 -L upstream "$DEV" || exit_failed "mkzonefs"
zio "=9 sb $SB_FILE features" "=292 sb $SB_FILE perm" "=upstream sb $SB_FILE label" "=good sb $SB_FILE crc" ||
	exit_failed "superblock"
"$MKZONEFS" --help | grep --quiet --ignore-case usage || exit_failed "--help"

pass
