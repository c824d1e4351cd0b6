#!/bin/bash
# SPDX-License-Identifier: MIT
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "mount: read-only" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
mount_again -o ro || exit_failed "mount -o ro"
[[ $(findmnt --noheadings --output OPTIONS "$MNT") == ro,* ]] || exit_failed "not ro in /proc/mounts"
verify_file seq/0 0 8192 || exit_failed "data"
before=$(snapshot)
zio "!EROFS open $SEQ0 wronly,direct" "!EROFS open $SEQ0 rdwr" "!EROFS open $SEQ0 rdonly,trunc" \
	"!EROFS truncate $SEQ0 0" "!EROFS truncate $SEQ0 $CAP" "!EROFS chmod $SEQ0 600" "!EROFS chown $SEQ0 1 1" \
	"!EROFS utime $SEQ0 0 0" "!EROFS unlink $SEQ0" "!EROFS rmdir $MNT/seq" "!EROFS rename $SEQ0 $MNT/seq/1" \
	"=no access $SEQ0 w" || exit_failed "refusals"
# Kernel zonefs looks the name up first and answers ENOENT; above FUSE the kernel checks the mount first.
zio "!EROFS open $MNT/new wronly,creat" "!EROFS mkdir $MNT/new" "!EROFS symlink x $MNT/seq/new" || exit_failed "creating"
expect_unchanged "$before" || exit_failed "something changed"
[[ $(counter max_wro_seq_files) == "$MAX_OPEN" ]] || exit_failed "counters of a read-only mount"

pass
