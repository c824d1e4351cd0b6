#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Writes and truncate(2) leave the times alone, O_TRUNC and ftruncate(2) do not" "$@"

mount_zonefs || exit_failed "mount"
before=$(zio "times $SEQ0")
same_times() {
	[[ $(zio "times $SEQ0") == "$before" ]]
}
write_seq seq/0 0 4096 && same_times || exit_failed "write"
zio "open $SEQ0 wronly,direct" "!EINVAL pwrite 0 4096" && same_times || exit_failed "refused write"
zio "truncate $SEQ0 $CAP" && same_times || exit_failed "finish"
zio "truncate $SEQ0 0" && same_times || exit_failed "reset"
zio "open $SEQ0 wronly,trunc" && ! same_times || exit_failed "O_TRUNC"
before=$(zio "times $SEQ0")
zio "open $SEQ0 wronly" "ftruncate 0" && ! same_times || exit_failed "ftruncate"
if ((NR_CNV)); then
	before=$(zio "times $CNV0")
	zio "open $CNV0 wronly" "=100 pwrite 50 100" "open $CNV0 wronly,direct" "=4096 pwrite 4096 4096" || exit_failed "cnv"
	[[ $(zio "times $CNV0") == "$before" ]] || exit_failed "write to a conventional file"
fi

pass
