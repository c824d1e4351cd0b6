#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "Locks, leases, advice" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
zio_start
zio_do "open $SEQ0 rdwr,direct" "flock ex" "lock ex" || exit_failed "lock"
zio "open $SEQ0 rdwr" "!EAGAIN flock sh" "!EAGAIN lock sh" || exit_failed "not locked for others"
zio_do "flock un" "lock un" || exit_failed "unlock"
zio "open $SEQ0 rdwr" "flock sh" "lock sh" || exit_failed "still locked"
zio_stop || exit_failed "close"
zio "open $SEQ0 rdonly" "lease sh" "lease un" || exit_failed "lease"
for advice in 0 1 2 3 4 5; do
	zio "open $SEQ0 rdonly" "fadvise $advice" || exit_failed "fadvise $advice"
done
zio "open $SEQ0 rdonly" "!EINVAL fadvise 9" "readahead 0 8192" || exit_failed "bad advice, readahead"
# Files of FUSE can be polled (kernel zonefs: EPERM).
zio "open $SEQ0 rdonly" "epoll" || exit_failed "epoll"

pass
