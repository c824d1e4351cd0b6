#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "umount: by a signal to the daemon" "$@"

for signal in TERM INT; do
	mount_zonefs || exit_failed "mount"
	zio "open $SEQ0 wronly,direct,append" "=4096 write 4096 at=$(size_of seq/0)" || exit_failed "write"
	kill -"$signal" "$(daemon_pid)" || exit_failed "kill"
	wait_until "the daemon ended" daemon_ended || exit_failed "SIG$signal does not end the daemon"
	! is_mounted || exit_failed "still mounted after SIG$signal"
	[[ $(<"$DAEMON/status") == 0 ]] || exit_failed "exit status after SIG$signal"
done
mount_zonefs || exit_failed "mount"
expect_size seq/0 8192 || exit_failed "size"
verify_file seq/0 0 8192 || exit_failed "data"

pass
