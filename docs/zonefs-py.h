/* SPDX-License-Identifier: MIT */
/*
 * The ioctl of zonefs-py: copy ranges of zone files, one after the other, into
 * one zone file of the same mount, without the data passing through the caller.
 *
 * Open the destination for writing, fill in a struct zonefs_py_copy with its
 * ranges, and call
 *
 *	ioctl(fd, ZONEFS_PY_IOC_COPY(nr_ranges), copy)
 *
 * The kernel carries exactly the bytes that the command says, so the number of
 * ranges is part of the command: it must be the same as in nr_ranges.
 *
 * What it returns:
 *
 *  -1  with errno, and the structure as it was:
 *	EBADF	the descriptor is not open for writing
 *	EINVAL	malformed: the command's number of ranges is not nr_ranges,
 *		there are none or too many, or reserved is not 0
 *	ENOTTY	not a zone file of zonefs-py, or a version without this ioctl
 *	EFAULT	the structure is not all in writable memory
 *
 *   0  the request was understood: result says what came of it, and comp_len
 *	of each range how much of it is copied. A result other than 0 with all
 *	comp_len 0 has changed nothing, unless it is an error of the device.
 *
 * All ranges are checked before the first byte is copied:
 *
 *	EINVAL	a length is 0; an offset or a length is not a multiple of the
 *		block size (st_blksize); a range does not lie within its file's
 *		size; a range overlaps the destination; dst_offset is not the
 *		write pointer of a sequential file; or it is
 *		ZONEFS_PY_AT_WRITE_POINTER for a conventional one; the ranges
 *		are together more than 1 GiB
 *	ENOENT	there is no inode src_ino
 *	EISDIR	src_ino is a directory
 *	EACCES	the caller may not read the file src_ino: its mode (owner,
 *		group, others; supplementary groups count) or that of a
 *		directory on the way to it forbids it; root may read all
 *	EPERM	the zone of a source cannot be read, or that of the
 *		destination not be written
 *	EROFS	the file system is read-only
 *	EFBIG	the ranges are together more than the destination has room for
 *
 * While it copies: EIO, ENOSPC, ETOOMANYREFS (no more zones can be open),
 * EOVERFLOW (no more zones can be active), ENOMEM. Then everything before the
 * first range with comp_len < length is copied, as are comp_len bytes of that
 * range; in a sequential file the write pointer may be further on than that.
 */
#ifndef ZONEFS_PY_H
#define ZONEFS_PY_H

#include <linux/types.h>
#include <sys/ioctl.h>

/* For dst_offset: wherever the write pointer of the sequential file is. */
#define ZONEFS_PY_AT_WRITE_POINTER (~(__u64)0)

/* Most ranges of one ioctl. */
#define ZONEFS_PY_MAX_RANGES 510

struct zonefs_py_copy_range {
	__u64 src_ino;		/* in: the source zone file's inode number (st_ino) */
	__u64 src_offset;	/* in: where the range begins in it, bytes */
	__u64 length;		/* in: how long the range is, bytes; not 0 */
	__u64 comp_len;		/* out: bytes from its beginning known to be copied; ignored as input */
};

struct zonefs_py_copy {
	__u64 nr_ranges;	/* in: number of ranges, 1 to ZONEFS_PY_MAX_RANGES */
	__u64 dst_offset;	/* in: where in the destination the first range goes, bytes, or
				 * ZONEFS_PY_AT_WRITE_POINTER; the others follow it without gaps
				 * out: where the copy began, if it was not refused */
	__u64 result;		/* out: 0, or the errno that stopped the copy; ignored as input */
	__u64 reserved;		/* in: 0 */
	struct zonefs_py_copy_range ranges[];
};

/* The command for a struct zonefs_py_copy with nr ranges. */
#define ZONEFS_PY_IOC_COPY(nr) \
	_IOC(_IOC_READ | _IOC_WRITE, 'Z', 0x81, \
	     sizeof(struct zonefs_py_copy) + (nr) * sizeof(struct zonefs_py_copy_range))

#endif
