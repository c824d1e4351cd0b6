#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Directory entries, their order and offsets" "$@"

mount_zonefs || exit_failed "mount"
entries() {
	zio "open $1 rdonly,directory" "getdents ${2:-0} ${3:-65536}" | tail --lines=1
}
wanted="1 $((ZONES + 2)) dir .;2 $ZONES dir .."
for ((i = 0; i < NR_SEQ; i++)); do
	wanted+=";$((3 + i)) $((FIRST_SEQ + i)) reg $i"
done
[[ $(entries "$MNT/seq") == "$wanted" ]] || exit_failed "seq"
[[ $(entries "$MNT/seq" 0 100) == "$wanted" ]] || exit_failed "seq, in small portions"
[[ $(entries "$MNT/seq" 5) == "6 $((FIRST_SEQ + 3)) reg 3;"* ]] || exit_failed "seq from entry 5 on"
[[ -z $(entries "$MNT/seq" $((2 + NR_SEQ))) ]] || exit_failed "seq from the end on"
root="1 $ZONES dir .;2 $ZONES dir ..;"
((NR_CNV == 0)) || root+="3 $((ZONES + 1)) dir cnv;"
root+="$((NR_CNV ? 4 : 3)) $((ZONES + 2)) dir seq"
[[ $(entries "$MNT") == "$root" ]] || exit_failed "root"

pass
