#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Sequential file: dd, cat, cp, cmp" "$@"

mount_zonefs || exit_failed "mount"
head --bytes=262144 /dev/urandom >"$TEST_DIR/data"
dd if="$TEST_DIR/data" of="$SEQ0" bs=32k oflag=direct conv=notrunc status=none || exit_failed "dd"
cmp "$TEST_DIR/data" "$SEQ0" || exit_failed "data after dd"
dd if="$TEST_DIR/data" of="$SEQ0" bs=32k oflag=direct,append conv=notrunc status=none || exit_failed "dd, append"
cat "$TEST_DIR/data" "$TEST_DIR/data" | cmp - "$SEQ0" || exit_failed "data after appending"
cp "$SEQ0" "$TEST_DIR/copy" && cmp "$SEQ0" "$TEST_DIR/copy" || exit_failed "cp out"
[[ $(sha256sum <"$SEQ0") == "$(sha256sum <"$TEST_DIR/copy")" ]] || exit_failed "sha256sum"
dd if="$SEQ0" bs=64k iflag=direct status=none | cmp - "$TEST_DIR/copy" || exit_failed "dd, direct read"
dd if="$TEST_DIR/data" of="$SEQ0" bs=32k oflag=direct status=none || exit_failed "dd that truncates"
cmp "$TEST_DIR/data" "$SEQ0" || exit_failed "data after dd that truncates"

pass
