#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: options" "$@"

options() {
	zonefs_py info "$MNT" --format json | json mount options
}
for policy in remount-ro zone-ro zone-offline repair; do
	mount_zonefs -o "errors=$policy" || exit_failed "errors=$policy"
	[[ $(options) == *errors=$policy* ]] || exit_failed "errors=$policy is not shown"
	unmount_zonefs || exit_failed "umount"
done
# A device without limits ignores explicit-open.
DEV=$TEST_DIR/limited
create_small_device "$DEV" --max-open 4 && format_device || exit_failed "device with a limit"
mount_zonefs -o ",errors=repair,,explicit-open,errors=zone-ro," || exit_failed "repeated option, stray commas"
[[ $(options) == *errors=zone-ro* && $(options) != *repair* ]] || exit_failed "the last one does not win"
[[ $(options) == *explicit-open* ]] || exit_failed "explicit-open is not shown"
mount_again || exit_failed "mount without options"
[[ $(options) == *errors=remount-ro* && $(options) != *explicit-open* ]] || exit_failed "defaults"

pass
