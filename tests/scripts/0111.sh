#!/bin/bash
# SPDX-License-Identifier: MIT
# geometry: any
# shellcheck source=/dev/null
. "${0%/*}/test_lib"

title "ioctl" "$@"

mount_zonefs || exit_failed "mount"
write_seq seq/0 0 8192 || exit_failed "write"
before=$(snapshot)
for request in FS_IOC_GETFLAGS FS_IOC_SETFLAGS FS_IOC_FSGETXATTR FS_IOC_GETVERSION FS_IOC_GETFSLABEL FS_IOC_ENABLE_VERITY \
	FS_IOC_GET_ENCRYPTION_POLICY BLKGETSIZE64 BLKREPORTZONE BLKRESETZONE BLKGETZONESZ FITRIM TCGETS UNKNOWN; do
	zio "open $SEQ0 rdwr,direct" "!ENOTTY ioctl $request" || exit_failed "$request"
done
# FUSE: the block size of the file system is the page size (kernel zonefs: that of the device).
zio "open $SEQ0 rdwr,direct" "!EOPNOTSUPP ioctl FS_IOC_FIEMAP" "!EOPNOTSUPP ioctl FIFREEZE" "=4096 ioctl FIGETBSZ" \
	"=8192 ioctl FIONREAD" "lseek 4096" "=4096 ioctl FIONREAD" || exit_failed "what the kernel answers"
zio "open $SEQ0 rdonly" "open $MNT/seq/1 wronly,direct" "!EOPNOTSUPP clone 0" "!EOPNOTSUPP dedupe 0 4096" || exit_failed "clone, dedupe"
expect_unchanged "$before" || exit_failed "something changed"

pass
