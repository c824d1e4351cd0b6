#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mkfs: label" "$@"

format_device -L "a label" || exit_failed "mkfs -L"
[[ $(zio "sb $SB_FILE label") == "a label" ]] || exit_failed "label"
longest=$(printf 'x%.0s' {1..64})
before=$(device_digest)
expect_refused "label" format_device -L "y$longest" || exit_failed "takes 65 bytes"
[[ $(device_digest) == "$before" ]] || exit_failed "a refused mkfs changed the device"
format_device -L "${longest#x}" || exit_failed "mkfs -L with 63 bytes"
[[ $(zio "sb $SB_FILE label") == "${longest#x}" ]] || exit_failed "label of 63 bytes"

pass
