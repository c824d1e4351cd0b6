#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: damaged device directory" "$@"

require_emulated "no directory"
file=$(backing seq/0)
mv "$file" "$TEST_DIR/kept"
expect_no_mount "${file##*/}" || exit_failed "missing zone file"
ln --symbolic "$TEST_DIR/kept" "$file"
expect_no_mount "${file##*/}" || exit_failed "symlink for a zone file"
rm "$file" && mkdir "$file"
expect_no_mount "${file##*/}" || exit_failed "directory for a zone file"
rmdir "$file" && mv "$TEST_DIR/kept" "$file"
truncate --size=$((CAP + BS)) "$file"
expect_no_mount "${file##*/}" || exit_failed "zone file above the capacity"
truncate --size=0 "$file"

cp "$DEV/device.json" "$TEST_DIR/json"
head --bytes=40 "$TEST_DIR/json" >"$DEV/device.json"
expect_no_mount "device.json" || exit_failed "truncated device.json"
echo '{"format": "something else"}' >"$DEV/device.json"
expect_no_mount "device.json" || exit_failed "foreign device.json"
rm "$DEV/device.json"
expect_no_mount "device.json" || exit_failed "missing device.json"
cp "$TEST_DIR/json" "$DEV/device.json"
mount_zonefs || exit_failed "mount of the mended device"

pass
