#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: helper of mount(8)" "$@"

mkdir "$TEST_DIR/daemon.0" && touch "$TEST_DIR/daemon.0/detached"
"$MOUNT_HELPER" "$DEV" "$MNT" -o "rw,errors=repair,noexec,log=$LOG_FILE" || exit_failed "helper"
[[ -f $SEQ0 ]] || exit_failed "not mounted"
zonefs_py info "$MNT" --format json | json mount pid >"$TEST_DIR/daemon.0/pid"
[[ $(findmnt --noheadings --output OPTIONS "$MNT") == *noexec* ]] || exit_failed "noexec"
[[ $(zonefs_py info "$MNT" --format json | json mount options) == *errors=repair* ]] || exit_failed "errors=repair"
umount "$MNT" || exit_failed "umount"
expect_refused "nonesuch" "$MOUNT_HELPER" "$DEV" "$MNT" -o nonesuch || exit_failed "unknown option"

pass
