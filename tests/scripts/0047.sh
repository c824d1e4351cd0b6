#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Attributes of directories" "$@"

mount_zonefs || exit_failed "mount"
attributes() {
	stat --format='%f %u %g %h %s %b %o' "$1"
}
groups=$((NR_CNV ? 2 : 1))
[[ $(attributes "$MNT") == "416d 0 0 $((2 + groups)) $((2 + groups)) 0 $BS" ]] || exit_failed "root"
[[ $(attributes "$MNT/seq") == "416d 0 0 2 $NR_SEQ 0 $BS" ]] || exit_failed "seq"
((NR_CNV == 0)) || [[ $(attributes "$MNT/cnv") == "416d 0 0 2 $NR_CNV 0 $BS" ]] || exit_failed "cnv"

pass
