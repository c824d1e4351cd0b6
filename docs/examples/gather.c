/* SPDX-License-Identifier: MIT */
/*
 * Appends ranges of zone files to a zone file of the same mount:
 *
 *	cc -I docs -o gather docs/examples/gather.c
 *	./gather /mnt/seq/5 /mnt/seq/0:0:8192 /mnt/seq/3:65536:4096
 *
 * Offsets and lengths are bytes, multiples of the block size. A line for each
 * range says how much of it was copied.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "zonefs-py.h"

static int parse_range(char *text, struct zonefs_py_copy_range *range)
{
	char *length = strrchr(text, ':');
	char *offset, *end;
	struct stat status;

	if (!length)
		return -1;
	*length++ = '\0';
	offset = strrchr(text, ':');
	if (!offset)
		return -1;
	*offset++ = '\0';
	if (stat(text, &status) < 0) {
		perror(text);
		return -1;
	}
	range->src_ino = status.st_ino;
	range->src_offset = strtoull(offset, &end, 0);
	if (end == offset || *end)
		return -1;
	range->length = strtoull(length, &end, 0);
	return end == length || *end ? -1 : 0;
}

int main(int argc, char **argv)
{
	unsigned int nr_ranges = argc > 2 ? (unsigned int)argc - 2 : 0;
	struct zonefs_py_copy *copy;
	unsigned int i;
	int fd;

	if (nr_ranges < 1 || nr_ranges > ZONEFS_PY_MAX_RANGES) {
		fprintf(stderr, "usage: %s DESTINATION SOURCE:OFFSET:LENGTH...\n", argv[0]);
		return 2;
	}
	copy = calloc(1, sizeof(*copy) + nr_ranges * sizeof(copy->ranges[0]));
	if (!copy) {
		perror("gather");
		return 1;
	}
	copy->nr_ranges = nr_ranges;
	copy->dst_offset = ZONEFS_PY_AT_WRITE_POINTER;
	for (i = 0; i < nr_ranges; i++) {
		if (parse_range(argv[i + 2], &copy->ranges[i]) < 0) {
			fprintf(stderr, "gather: range %u is not SOURCE:OFFSET:LENGTH\n", i);
			return 2;
		}
	}
	fd = open(argv[1], O_WRONLY);
	if (fd < 0) {
		perror(argv[1]);
		return 1;
	}
	if (ioctl(fd, ZONEFS_PY_IOC_COPY(nr_ranges), copy) < 0) {
		perror("gather: ioctl");
		return 1;
	}
	for (i = 0; i < nr_ranges; i++)
		printf("%" PRIu64 " of %" PRIu64 "\n", (uint64_t)copy->ranges[i].comp_len,
		       (uint64_t)copy->ranges[i].length);
	if (copy->result) {
		fprintf(stderr, "gather: %s\n", strerror((int)copy->result));
		return 1;
	}
	printf("at %" PRIu64 "\n", (uint64_t)copy->dst_offset);
	close(fd);
	free(copy);
	return 0;
}
