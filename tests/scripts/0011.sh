#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "create: refused geometries and directories" "$@"

new=$TEST_DIR/new
refused() {
	expect_refused "$1" zonefs_py create "$new" "${@:2}" || expect_usage_error "$1" zonefs_py create "$new" "${@:2}"
}
refused "capacity" --zones 4 --zone-size 4M --zone-capacity 5M || exit_failed "capacity above the zone size"
refused "block" --zones 4 --zone-size 4M --block-size 1000 || exit_failed "block size 1000"
refused "zone.size" --zones 4 --zone-size 1000 || exit_failed "zone size not a multiple of the block size"
refused "conventional" --zones 4 --conventional 5 --zone-size 4M || exit_failed "more conventional zones than zones"
refused "zones" --zones 0 --zone-size 4M || exit_failed "no zones"
refused "last" --zones 4 --zone-size 4M --last-zone-size 5M || exit_failed "last zone larger than the others"
refused "size" --zones 4 --zone-size 4Q || exit_failed "unknown suffix"
[[ ! -e $new ]] || exit_failed "a refused create left something"

mkdir "$new" && echo precious >"$new/file" || exit_failed "mkdir"
refused "empty" --zones 4 --zone-size 4M || exit_failed "directory with a file in it"
[[ $(ls "$new") == file && $(<"$new/file") == precious ]] || exit_failed "a refused create changed the directory"
before=$(device_digest)
expect_refused "device|empty" zonefs_py create "$DEV" --zones 4 --zone-size 4M || exit_failed "an existing device"
[[ $(device_digest) == "$before" ]] || exit_failed "a refused create changed a device"

pass
