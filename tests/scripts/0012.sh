#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "create: layout of the directory" "$@"

new=$TEST_DIR/new
create_small_device "$new" || exit_failed "create"
for ((i = 0; i < ZONES; i++)); do
	if ((i < CONV)); then
		name=$(printf 'cnv-%06d' "$i") wanted=$ZONE_SIZE
	else
		name=$(printf 'seq-%06d' "$i") wanted=0
	fi
	[[ -f $new/$name && $(stat --format=%s "$new/$name") == "$wanted" ]] || exit_failed "$name"
done
[[ $(find "$new" -mindepth 1 | wc --lines) == $((ZONES + 1)) ]] || exit_failed "other files"
[[ $(du --block-size=1 --summarize "$new" | cut --fields=1) -lt 1048576 ]] || exit_failed "not sparse"
"$ZIO_PYTHON" -I -S -c 'import json, sys; json.load(open(sys.argv[1]))' "$new/device.json" || exit_failed "device.json"
info=$(zonefs_py info "$new" --format json) || exit_failed "info"
[[ $(json device nr_zones <<<"$info") == "$ZONES" && $(json device nr_conventional_zones <<<"$info") == "$CONV" &&
	$(json device zone_size <<<"$info") == "$ZONE_SIZE" && $(json device zone_capacity <<<"$info") == "$ZONE_CAP" &&
	$(json device block_size <<<"$info") == "$BLOCK" && $(json format <<<"$info") == null ]] || exit_failed "info's values"

pass
