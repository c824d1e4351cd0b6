/*
 * What pyfuse3 lacks, let in by a side door.
 *
 * pyfuse3 calls libfuse through the dynamic linker. This extension is loaded
 * with RTLD_GLOBAL before pyfuse3, so the functions that it defines under
 * libfuse's names are the ones that pyfuse3 gets; each of them goes on to the
 * real one in libfuse3.so.3. pyfuse3 itself stays as it is.
 *
 *  fuse_session_new       a copy of pyfuse3's operation table is changed:
 *    - read, write are handed to Python, with the open file's *current* flags
 *      (O_DIRECT, O_APPEND, O_DSYNC; fcntl can change them after open), which
 *      pyfuse3 does not pass on. Python answers at once, or later;
 *    - copy_file_range and ioctl, which pyfuse3 does not know, likewise; and
 *      open, whose answer can name a backing file (passthrough);
 *    - getxattr and its kin, access, flush, poll are taken out: libfuse then
 *      answers ENOSYS, and the kernel never asks again;
 *    - init: data comes by read() rather than by a pipe (splice costs more
 *      than it saves when the data ends in a Python object anyway).
 *  fuse_session_receive_buf
 *                         requests of the kinds above are worked on here, one
 *                         after the other, before pyfuse3's loop hears of any:
 *                         a turn of that loop costs more than a small request.
 *  fuse_session_destroy   does nothing: a thread may still use the session.
 *  fuse_reply_entry, fuse_add_direntry_plus
 *                         the node id is the inode number plus one: node 1
 *                         must be the root, while inode 1 is zone 1's file.
 *                         The upper half of the generation is that of the node
 *                         id: a file can have several nodes.
 *
 * Passthrough (Linux 6.9): libfuse knows it from 3.17 on. For 3.13 to 3.16 the
 * answer to INIT is changed on its way to the kernel, and that to open is put
 * together here.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define FUSE_USE_VERSION 312
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* Our own definitions below must keep libfuse's exported names. */
#include <fuse_lowlevel.h>
#undef fuse_session_new

#define NODE_OFFSET 1

/* What the wire protocol of FUSE says (linux/fuse.h); libfuse does not export it. */
#define OPCODE_OPEN 14
#define OPCODE_READ 15
#define OPCODE_WRITE 16
#define MAX_BACKGROUND 1024
#define OPCODE_INIT 26
#define OPCODE_IOCTL 39
#define OPCODE_COPY_FILE_RANGE 47

struct request_header {
	uint32_t length;
	uint32_t opcode;
	uint64_t unique;
	uint64_t node;
	uint32_t uid;
	uint32_t gid;
	uint32_t pid;
	uint32_t padding;
};

struct answer_header {
	uint32_t length;
	int32_t error;
	uint64_t unique;
};

struct init_request {
	uint32_t major;
	uint32_t minor;
	uint32_t max_readahead;
	uint32_t flags;
	uint32_t flags2;
};

struct init_answer {
	uint32_t major;
	uint32_t minor;
	uint32_t max_readahead;
	uint32_t flags;
	uint16_t max_background;
	uint16_t congestion_threshold;
	uint32_t max_write;
	uint32_t time_gran;
	uint16_t max_pages;
	uint16_t map_alignment;
	uint32_t flags2;
	uint32_t max_stack_depth;
	uint32_t unused[6];
};

struct open_answer {
	uint64_t handle;
	uint32_t flags;
	int32_t backing;
};

struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};

#define INIT_EXTENDED (1U << 30)            /* there are flags2 */
#define INIT2_PASSTHROUGH (1U << 5)
#define PASSTHROUGH_MINOR 40                /* the protocol that has it */
#define OPEN_DIRECT_IO (1U << 0)
#define OPEN_PASSTHROUGH (1U << 7)
#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

#define WRITE_HEADER_SIZE 80                /* before the data of a write */
#define MAX_TRANSFER (1U << 20)             /* what the kernel reads or writes at most in one request */
#define HEADER_ROOM 4096                    /* what libfuse leaves for headers */

/*
 * How long requests are worked on before trio gets a turn, and how long one
 * that may follow is waited for: an application that reads or writes in a loop
 * sends its next request a few microseconds after the answer. To be asleep
 * then, and woken up, costs more than the request, so at first we only look.
 */
#define TURN_REQUESTS 256
#define TURN_NANOSECONDS 1000000
#define LOOK_NANOSECONDS 30000
#define SLEEP_NANOSECONDS 100000

#define EXPORT __attribute__((visibility("default")))

static int sessions;                        /* how often fuse_session_new came through here */
static struct fuse_lowlevel_ops original;   /* pyfuse3's table */
static struct fuse_lowlevel_ops changed;

/*
 * Python imports extensions with RTLD_LOCAL dependencies, so look the real
 * function up in libfuse itself rather than with RTLD_NEXT.
 */
static void *libfuse(const char *name)
{
	static void *library;
	void *found;

	if (!library)
		library = dlopen("libfuse3.so.3", RTLD_NOW | RTLD_NOLOAD);
	if (!library)
		library = dlopen("libfuse3.so.4", RTLD_NOW | RTLD_NOLOAD);
	found = library ? dlsym(library, name) : NULL;
	if (!found)
		Py_FatalError("zonefs_py.fuse._door: libfuse3 lacks a function it must have");
	return found;
}

/* Requests that Python works on. What it registered for each kind, and how many it has not yet answered. */
enum kind { OPEN, READ, WRITE, COPY_FILE_RANGE, IOCTL, KINDS };

static PyObject *handlers[KINDS];
static long unanswered;

/* Called when there are no more requests: the file system was unmounted. */
static PyObject *end_handler;

static void say_end(void)
{
	PyObject *result;

	if (!end_handler)
		return;
	result = PyObject_CallNoArgs(end_handler);
	if (!result)
		PyErr_WriteUnraisable(end_handler);
	Py_XDECREF(result);
}

static int opcode_is_ours(uint32_t opcode)
{
	return opcode == OPCODE_OPEN || opcode == OPCODE_READ || opcode == OPCODE_WRITE ||
	       opcode == OPCODE_COPY_FILE_RANGE || opcode == OPCODE_IOCTL;
}

/*
 * Hand a request to Python: *arguments* are its own, which are let go of here;
 * NULL is what could not be made. The answer is
 *   None      it comes later, by one of the reply functions;
 *   a number  bytes that were read into *data*, or written; negative, an errno.
 * Called by libfuse within fuse_session_process_buf, that is on trio's thread
 * with the GIL held.
 */
static void hand_over(enum kind kind, fuse_req_t req, PyObject **arguments, size_t count, const char *data)
{
	PyObject *answer = NULL;
	int complete = 1;
	long number;
	size_t i;

	for (i = 0; i < count; i++)
		complete &= arguments[i] != NULL;
	if (!complete) {
		PyErr_Clear();
		fuse_reply_err(req, ENOMEM);
	} else if (!handlers[kind]) {
		fuse_reply_err(req, EIO);
	} else {
		unanswered++;
		answer = PyObject_Vectorcall(handlers[kind], arguments, count, NULL);
		if (answer == Py_None) {
			Py_CLEAR(answer);
			goto out;
		}
		unanswered--;
		number = answer ? PyLong_AsLong(answer) : -1;
		if (number == -1 && PyErr_Occurred()) {
			PyErr_WriteUnraisable(handlers[kind]);
			number = -EIO;
		}
		if (number < 0)
			fuse_reply_err(req, (int)-number);
		else if (data)
			fuse_reply_buf(req, data, (size_t)number);
		else
			fuse_reply_write(req, (size_t)number);
	}
out:
	Py_XDECREF(answer);
	for (i = 0; i < count; i++)
		Py_XDECREF(arguments[i]);
}

static PyObject *unsigned_number(unsigned long long value)
{
	return PyLong_FromUnsignedLongLong(value);
}

static PyObject *request_number(fuse_req_t req)
{
	return PyLong_FromVoidPtr(req);
}

/* The open file's flags for this request. Of a page written back from a mapping they say nothing. */
static PyObject *flag(const struct fuse_file_info *fi, int wanted)
{
	return PyBool_FromLong(!fi->writepage && (fi->flags & wanted));
}

static void door_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	PyObject *arguments[] = {
		request_number(req), unsigned_number(ino), PyLong_FromLong(fi->flags),
		unsigned_number(fuse_req_ctx(req)->uid),
	};

	hand_over(OPEN, req, arguments, 4, NULL);
}

/*
 * Where requests are read into, and answers to reads are made. The data of a
 * write begins on a page, and so does that of an answer. They are never given
 * back, so that a view that was kept by mistake shows nonsense rather than
 * somebody's memory.
 */
static char *request_buffer;
static char *answer_buffer;

static void release(PyObject *view)
{
	static PyObject *name;
	PyObject *released;

	if (!view)
		return;
	if (!name)
		name = PyUnicode_InternFromString("release");
	released = name ? PyObject_CallMethodNoArgs(view, name) : NULL;
	if (!released)
		PyErr_WriteUnraisable(view);
	Py_XDECREF(released);
	Py_DECREF(view);
}

static void door_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	PyObject *view;

	(void)ino;
	if (size > MAX_TRANSFER) {
		fuse_reply_err(req, EIO);
		return;
	}
	view = PyMemoryView_FromMemory(answer_buffer, (Py_ssize_t)size, PyBUF_WRITE);
	Py_XINCREF(view);
	{
		PyObject *arguments[] = {
			request_number(req), unsigned_number(fi->fh), PyLong_FromLongLong(off), unsigned_number(size),
			flag(fi, O_DIRECT), view,
		};

		hand_over(READ, req, arguments, 6, answer_buffer);
	}
	release(view);
}

/*
 * The data is a memoryview of the buffer that the request came in: what is
 * kept of it beyond the call must be copied.
 */
static void door_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *bufv, off_t off,
			   struct fuse_file_info *fi)
{
	PyObject *view;

	(void)ino;
	/* Without splice there is one buffer, and it is memory. */
	if (bufv->count != 1 || bufv->idx || bufv->off || (bufv->buf[0].flags & FUSE_BUF_IS_FD)) {
		fuse_reply_err(req, EIO);
		return;
	}
	view = PyMemoryView_FromMemory(bufv->buf[0].mem, (Py_ssize_t)bufv->buf[0].size, PyBUF_READ);
	Py_XINCREF(view);
	{
		PyObject *arguments[] = {
			request_number(req), unsigned_number(fi->fh), PyLong_FromLongLong(off), view,
			flag(fi, O_DIRECT), flag(fi, O_APPEND), flag(fi, O_DSYNC),
		};

		hand_over(WRITE, req, arguments, 7, NULL);
	}
	release(view);
}

static void door_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
				 fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
				 int flags)
{
	PyObject *arguments[] = {
		request_number(req),   unsigned_number(fi_in->fh), PyLong_FromLongLong(off_in),
		unsigned_number(fi_out->fh), PyLong_FromLongLong(off_out), unsigned_number(len),
		PyLong_FromLong(flags),
	};

	(void)ino_in;
	(void)ino_out;
	hand_over(COPY_FILE_RANGE, req, arguments, 7, NULL);
}

/* The data is copied into a bytes object: the request's buffer is gone when we return. */
static void door_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg, struct fuse_file_info *fi,
		       unsigned int flags, const void *in_buf, size_t in_bufsz, size_t out_bufsz)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	PyObject *arguments[] = {
		request_number(req), unsigned_number(fi->fh), unsigned_number(cmd), unsigned_number(flags),
		PyBytes_FromStringAndSize(in_buf ? in_buf : "", (Py_ssize_t)(in_buf ? in_bufsz : 0)),
		unsigned_number(out_bufsz), unsigned_number(ctx->uid), unsigned_number(ctx->gid),
		PyLong_FromLong(ctx->pid),
	};

	(void)ino;
	(void)arg;
	hand_over(IOCTL, req, arguments, 9, NULL);
}

static struct fuse_session *session;
static int passthrough_wanted;              /* Python says so */
static int passthrough_granted;             /* the kernel has been told that we want it, and knows it */

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
#define PASSTHROUGH_BY "libfuse"

static void ask_for_passthrough(struct fuse_conn_info *conn)
{
	/* Two fields for the same flags, of which libfuse lets only one be changed: make them one. */
	conn->want_ext = (conn->want_ext & ~(uint64_t)UINT32_MAX) | conn->want;
	if (passthrough_wanted && (conn->capable_ext & FUSE_CAP_PASSTHROUGH)) {
		conn->want_ext |= FUSE_CAP_PASSTHROUGH;
		/* Zone files lie on an ordinary file system, and another one may be stacked on ours. */
		conn->max_backing_stack_depth = 0;
		passthrough_granted = 1;
	}
	conn->want = (uint32_t)conn->want_ext;
}

static int own_io(struct fuse_session *se, int fd)
{
	(void)se;
	(void)fd;
	return 0;
}

static void note_init(const struct request_header *header, ssize_t size)
{
	(void)header;
	(void)size;
}
#else
static void ask_for_passthrough(struct fuse_conn_info *conn)
{
	(void)conn;
}
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 13)
#define PASSTHROUGH_BY "door"

static uint64_t init_unique;                /* of the INIT request whose answer is to be changed, 0: none */

static void note_init(const struct request_header *header, ssize_t size)
{
	const struct init_request *init = (const struct init_request *)(header + 1);

	if (passthrough_wanted && header->opcode == OPCODE_INIT &&
	    size >= (ssize_t)(sizeof(*header) + sizeof(*init)) && (init->flags & INIT_EXTENDED) &&
	    (init->flags2 & INIT2_PASSTHROUGH))
		init_unique = header->unique;
}

static ssize_t write_answer(int fd, struct iovec *parts, int count, void *userdata)
{
	const struct answer_header *header = parts[0].iov_base;
	struct init_answer *answer;

	(void)userdata;
	if (init_unique && header->unique == init_unique) {
		init_unique = 0;
		if (!header->error && count == 2 && parts[1].iov_len >= sizeof(*answer)) {
			answer = parts[1].iov_base;
			answer->flags |= INIT_EXTENDED;
			answer->flags2 |= INIT2_PASSTHROUGH;
			/* Ours is the only layer: another file system may be stacked on it. */
			answer->max_stack_depth = 1;
			if (answer->minor < PASSTHROUGH_MINOR)
				answer->minor = PASSTHROUGH_MINOR;
			passthrough_granted = 1;
		}
	}
	return writev(fd, parts, count);
}

static ssize_t read_whole(int fd, void *buffer, size_t size, void *userdata)
{
	(void)userdata;
	return read(fd, buffer, size);
}

static int own_io(struct fuse_session *se, int fd)
{
	static const struct fuse_custom_io io = {.writev = write_answer, .read = read_whole};

	return passthrough_wanted ? fuse_session_custom_io(se, &io, fd) : 0;
}
#else
#define PASSTHROUGH_BY ""

static void note_init(const struct request_header *header, ssize_t size)
{
	(void)header;
	(void)size;
}

static int own_io(struct fuse_session *se, int fd)
{
	(void)se;
	(void)fd;
	return 0;
}
#endif
#endif

/* Answer an open. With *backing*, an id, what may pass us by goes to the backing file. */
static int answer_open(fuse_req_t req, uint64_t handle, int direct, int32_t backing)
{
	struct fuse_file_info fi = {.fh = handle, .direct_io = direct ? 1 : 0};
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
	fi.backing_id = backing;
#else
	struct open_answer answer = {handle, OPEN_PASSTHROUGH | (direct ? OPEN_DIRECT_IO : 0), backing};
	struct iovec part = {&answer, sizeof(answer)};

	if (backing)
		return fuse_reply_iov(req, &part, 1);
#endif
	return fuse_reply_open(req, &fi);
}

static void door_init(void *userdata, struct fuse_conn_info *conn)
{
	original.init(userdata, conn);
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	if (conn->max_write > MAX_TRANSFER)
		conn->max_write = MAX_TRANSFER;
	/* Requests that nobody waits for in a system call (libaio, io_uring). The
	 * kernel keeps back what is beyond, of all files: a device that is stuck
	 * in one zone would hold up the others after a dozen, the default. */
	conn->max_background = MAX_BACKGROUND;
	ask_for_passthrough(conn);
}

static const struct fuse_lowlevel_ops *change(const struct fuse_lowlevel_ops *ops, size_t size)
{
	if (size > sizeof(original))
		size = sizeof(original);
	memset(&original, 0, sizeof(original));
	memcpy(&original, ops, size);
	changed = original;
	changed.init = door_init;
	changed.open = door_open;
	changed.read = door_read;
	changed.write = NULL;
	changed.write_buf = door_write_buf;
	changed.copy_file_range = door_copy_file_range;
	changed.ioctl = door_ioctl;
	changed.getxattr = NULL;
	changed.setxattr = NULL;
	changed.removexattr = NULL;
	changed.access = NULL;
	changed.flush = NULL;
	changed.poll = NULL;
	sessions++;
	return &changed;
}

/* What the mount table shows as the device, as an option of libfuse's. pyfuse3 takes no options but ASCII. */
static char *source_option;

static int add_source(struct fuse_args *args)
{
	int (*add)(struct fuse_args *, const char *) = libfuse("fuse_opt_add_arg");

	return !source_option || (!add(args, "-o") && !add(args, source_option));
}

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
EXPORT struct fuse_session *
fuse_session_new_versioned(struct fuse_args *args, const struct fuse_lowlevel_ops *ops, size_t size,
			   struct libfuse_version *version, void *userdata)
{
	struct fuse_session *(*real)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t,
				     struct libfuse_version *, void *) = libfuse("fuse_session_new_versioned");

	if (!add_source(args))
		return NULL;
	return session = real(args, change(ops, size), sizeof(changed), version, userdata);
}
#else
EXPORT struct fuse_session *
fuse_session_new(struct fuse_args *args, const struct fuse_lowlevel_ops *ops, size_t size, void *userdata)
{
	struct fuse_session *(*real)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *) =
		libfuse("fuse_session_new");

	if (!add_source(args))
		return NULL;
	return session = real(args, change(ops, size), sizeof(changed), userdata);
}
#endif

/*
 * Not destroyed: when the loop has ended, threads may be on their way to tell
 * the kernel something, and use it. Nobody makes a second one in this process,
 * and its descriptor was closed by fuse_session_unmount.
 */
EXPORT void fuse_session_destroy(struct fuse_session *se)
{
	(void)se;
}

static int prepare(struct fuse_session *se, int fd)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *memory;
	int flags, error;

	if (posix_memalign(&memory, page, page + MAX_TRANSFER + HEADER_ROOM + MAX_TRANSFER))
		return -ENOMEM;
	/* What poll announces may be gone when it is read, because its sender was killed. */
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		free(memory);
		return -errno;
	}
	if ((error = own_io(se, fd)) < 0) {
		free(memory);
		return error;
	}
	request_buffer = (char *)memory + page - WRITE_HEADER_SIZE;
	answer_buffer = (char *)memory + page + MAX_TRANSFER + HEADER_ROOM;
	return 0;
}

/* Read one request; its size, 0 when the session is over, or -EAGAIN (none is there) or another errno. */
static ssize_t read_request(struct fuse_session *se, int fd)
{
	ssize_t size;

	do {
		size = read(fd, request_buffer, WRITE_HEADER_SIZE + MAX_TRANSFER + HEADER_ROOM);
		/* ENOENT: it was interrupted before we saw it. */
	} while (size < 0 && errno == ENOENT);
	if (fuse_session_exited(se))
		return 0;
	/* Unmounted; by force, a request can be lost just when it is read. */
	if (size < 0 && (errno == ENODEV || errno == ECONNABORTED)) {
		fuse_session_exit(se);
		return 0;
	}
	if (size < 0)
		return -errno;
	return size < (ssize_t)sizeof(struct request_header) ? -EIO : size;
}

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* When none was there: read one that comes within a moment, else -EAGAIN. Signals end it, for Python to see them. */
static ssize_t read_following(struct fuse_session *se, int fd)
{
	static long processors;
	const struct timespec moment = {0, SLEEP_NANOSECONDS};
	struct pollfd waited = {.fd = fd, .events = POLLIN};
	ssize_t size = -EAGAIN;

	if (!processors)
		processors = sysconf(_SC_NPROCESSORS_ONLN);
	Py_BEGIN_ALLOW_THREADS
	if (processors > 1) {
		int64_t end = now() + LOOK_NANOSECONDS;

		/* To look by reading: what is there need not be looked for first. */
		do {
			sched_yield();
			size = read_request(se, fd);
		} while (size == -EAGAIN && now() < end);
	}
	if (size == -EAGAIN && ppoll(&waited, 1, &moment, NULL) > 0)
		size = read_request(se, fd);
	Py_END_ALLOW_THREADS
	return size;
}

/*
 * Called by pyfuse3's loop, with the GIL, when a request is there. What we
 * know how to do is done here; the first other request is given to the loop.
 * -EINTR makes the loop, and so trio, begin again.
 */
EXPORT int fuse_session_receive_buf(struct fuse_session *se, struct fuse_buf *buf)
{
	struct fuse_buf request = {0};
	int fd = fuse_session_fd(se), turn, error;
	int64_t end = now() + TURN_NANOSECONDS;
	ssize_t size;
	void *copy;

	if (!request_buffer && (error = prepare(se, fd)))
		return error;
	for (turn = 0; turn < TURN_REQUESTS; turn++) {
		size = read_request(se, fd);
		/* While Python has something to answer, trio must see that it can. */
		if (size == -EAGAIN && turn && !unanswered && now() < end)
			size = read_following(se, fd);
		if (size == -EAGAIN)
			return -EINTR;
		if (size <= 0) {
			say_end();
			return (int)size;
		}
		note_init((struct request_header *)request_buffer, size);
		if (!opcode_is_ours(((struct request_header *)request_buffer)->opcode)) {
			copy = realloc(buf->mem, (size_t)size);
			if (!copy)
				return -ENOMEM;
			memcpy(copy, request_buffer, (size_t)size);
			buf->mem = copy;
			buf->size = (size_t)size;
			buf->flags = 0;
			return (int)size;
		}
		request.mem = request_buffer;
		request.size = (size_t)size;
		fuse_session_process_buf(se, &request);
		if (now() >= end)
			break;
	}
	return -EINTR;
}

static struct fuse_entry_param with_node(const struct fuse_entry_param *e)
{
	struct fuse_entry_param copy = *e;

	copy.ino += NODE_OFFSET + (copy.generation & ~(uint64_t)UINT32_MAX);
	copy.generation &= UINT32_MAX;
	return copy;
}

EXPORT int fuse_reply_entry(fuse_req_t req, const struct fuse_entry_param *e)
{
	static int (*real)(fuse_req_t, const struct fuse_entry_param *);
	struct fuse_entry_param copy = with_node(e);

	if (!real)
		real = libfuse("fuse_reply_entry");
	return real(req, &copy);
}

EXPORT size_t fuse_add_direntry_plus(fuse_req_t req, char *buf, size_t size, const char *name,
				     const struct fuse_entry_param *e, off_t off)
{
	static size_t (*real)(fuse_req_t, char *, size_t, const char *, const struct fuse_entry_param *, off_t);
	struct fuse_entry_param copy = with_node(e);

	if (!real)
		real = libfuse("fuse_add_direntry_plus");
	return real(req, buf, size, name, &copy, off);
}

static PyObject *door_sessions(PyObject *self, PyObject *args)
{
	(void)self;
	(void)args;
	return PyLong_FromLong(sessions);
}

static PyObject *door_libfuse_version(PyObject *self, PyObject *args)
{
	(void)self;
	(void)args;
	return PyUnicode_FromString(fuse_pkgversion());
}

static PyObject *door_set_handlers(PyObject *self, PyObject *args)
{
	PyObject *given[KINDS];
	int kind;

	(void)self;
	if (!PyArg_ParseTuple(args, "OOOOO", &given[OPEN], &given[READ], &given[WRITE], &given[COPY_FILE_RANGE], &given[IOCTL]))
		return NULL;
	for (kind = 0; kind < KINDS; kind++) {
		Py_INCREF(given[kind]);
		Py_XSETREF(handlers[kind], given[kind]);
	}
	Py_RETURN_NONE;
}

static PyObject *door_reply_ioctl(PyObject *self, PyObject *args)
{
	unsigned long long req;
	const char *data;
	Py_ssize_t size;

	(void)self;
	if (!PyArg_ParseTuple(args, "Ky#", &req, &data, &size))
		return NULL;
	unanswered--;
	return PyLong_FromLong(fuse_reply_ioctl((fuse_req_t)(uintptr_t)req, 0, data, (size_t)size));
}

static PyObject *door_set_source(PyObject *self, PyObject *option)
{
	const char *text = PyBytes_AsString(option);
	char *copy;

	(void)self;
	if (!text)
		return NULL;
	copy = strdup(text);
	if (!copy)
		return PyErr_NoMemory();
	free(source_option);
	source_option = copy;
	Py_RETURN_NONE;
}

static PyObject *door_want_passthrough(PyObject *self, PyObject *wanted)
{
	(void)self;
	passthrough_wanted = PyObject_IsTrue(wanted) == 1;
	Py_RETURN_NONE;
}

static PyObject *door_has_passthrough(PyObject *self, PyObject *args)
{
	(void)self;
	(void)args;
	return PyBool_FromLong(passthrough_granted);
}

static PyObject *door_open_backing(PyObject *self, PyObject *args)
{
	struct backing_map map = {0};
	int id;

	(void)self;
	if (!PyArg_ParseTuple(args, "i", &map.fd))
		return NULL;
	id = ioctl(fuse_session_fd(session), BACKING_OPEN, &map);
	if (id <= 0) {
		if (!id)
			errno = EIO;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	return PyLong_FromLong(id);
}

/*
 * A handle by which open_by_handle_at(2) finds an inode of ours that the
 * kernel has (fs/fuse/inode.c of Linux).
 */
#define HANDLE_WORDS 3                      /* upper and lower half of the node id, generation */
#define HANDLE_TYPE 0x81                    /* FILEID_INO64_GEN */

static PyObject *door_refresh(PyObject *self, PyObject *args)
{
	union {
		struct file_handle handle;
		char room[sizeof(struct file_handle) + HANDLE_WORDS * sizeof(uint32_t)];
	} place = {.handle = {.handle_bytes = HANDLE_WORDS * sizeof(uint32_t), .handle_type = HANDLE_TYPE}};
	uint32_t words[HANDLE_WORDS];
	unsigned long long node;
	unsigned int generation;
	struct statx status;
	int mount, fd, error = 0;

	(void)self;
	if (!PyArg_ParseTuple(args, "iKI", &mount, &node, &generation))
		return NULL;
	words[0] = (uint32_t)(node >> 32);
	words[1] = (uint32_t)node;
	words[2] = generation;
	memcpy(place.handle.f_handle, words, sizeof(words));
	Py_BEGIN_ALLOW_THREADS
	fd = open_by_handle_at(mount, &place.handle, O_PATH | O_CLOEXEC);
	/* First what we answer, then what the kernel took of it. */
	if (fd < 0 || statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &status) < 0 ||
	    statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &status) < 0)
		error = errno;
	if (fd >= 0)
		close(fd);
	Py_END_ALLOW_THREADS
	if (error) {
		errno = error;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	return unsigned_number(status.stx_size);
}

static PyObject *door_close_backing(PyObject *self, PyObject *args)
{
	int given;
	uint32_t id;

	(void)self;
	if (!PyArg_ParseTuple(args, "i", &given))
		return NULL;
	id = (uint32_t)given;
	if (ioctl(fuse_session_fd(session), BACKING_CLOSE, &id) < 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

static PyObject *door_reply_open(PyObject *self, PyObject *args)
{
	unsigned long long req, handle;
	int direct, backing;

	(void)self;
	if (!PyArg_ParseTuple(args, "KKpi", &req, &handle, &direct, &backing))
		return NULL;
	unanswered--;
	return PyLong_FromLong(answer_open((fuse_req_t)(uintptr_t)req, handle, direct, backing));
}

static PyObject *door_reply_data(PyObject *self, PyObject *args)
{
	unsigned long long req;
	const char *data;
	Py_ssize_t size;

	(void)self;
	if (!PyArg_ParseTuple(args, "Ky#", &req, &data, &size))
		return NULL;
	unanswered--;
	return PyLong_FromLong(fuse_reply_buf((fuse_req_t)(uintptr_t)req, data, (size_t)size));
}

static PyObject *door_reply_written(PyObject *self, PyObject *args)
{
	unsigned long long req, count;

	(void)self;
	if (!PyArg_ParseTuple(args, "KK", &req, &count))
		return NULL;
	unanswered--;
	return PyLong_FromLong(fuse_reply_write((fuse_req_t)(uintptr_t)req, (size_t)count));
}

static PyObject *door_reply_error(PyObject *self, PyObject *args)
{
	unsigned long long req;
	int number;

	(void)self;
	if (!PyArg_ParseTuple(args, "Ki", &req, &number))
		return NULL;
	unanswered--;
	return PyLong_FromLong(fuse_reply_err((fuse_req_t)(uintptr_t)req, number));
}

static PyObject *door_set_end_handler(PyObject *self, PyObject *handler)
{
	(void)self;
	Py_INCREF(handler);
	Py_XSETREF(end_handler, handler);
	Py_RETURN_NONE;
}

static PyObject *door_caller(PyObject *self, PyObject *args)
{
	unsigned long long req;

	(void)self;
	if (!PyArg_ParseTuple(args, "K", &req))
		return NULL;
	return PyLong_FromLong(req ? fuse_req_ctx((fuse_req_t)(uintptr_t)req)->pid : 0);
}

static PyMethodDef methods[] = {
	{"set_end_handler", door_set_end_handler, METH_O, "Register who is called when there are no more requests."},
	{"caller", door_caller, METH_VARARGS, "Id of the thread that sent a request that is not answered yet."},
	{"set_handlers", door_set_handlers, METH_VARARGS,
	 "Register who gets open (request, node, flags, uid), and (request, handle, ...): read (offset, size, direct,"
	 " memory), write (offset, data, direct, append, sync), copy_file_range (offset, handle, offset, length, flags),"
	 " ioctl (command, flags, data, output size, uid, gid, pid)."},
	{"set_source", door_set_source, METH_O, "Give libfuse's option fsname=, as bytes, to the next session."},
	{"want_passthrough", door_want_passthrough, METH_O, "Ask for passthrough, or not, when a session begins."},
	{"has_passthrough", door_has_passthrough, METH_NOARGS, "Whether the session has passthrough."},
	{"open_backing", door_open_backing, METH_VARARGS, "Make a descriptor's file a backing file; return its id."},
	{"close_backing", door_close_backing, METH_VARARGS, "Let go of a backing file by its id."},
	{"refresh", door_refresh, METH_VARARGS,
	 "Make the kernel ask for the attributes of an inode: descriptor of the mount point, node, generation. Returns the"
	 " size that the kernel has then."},
	{"reply_open", door_reply_open, METH_VARARGS,
	 "Answer an open: handle, whether it bypasses caches, id of a backing file or 0. Returns 0 or -errno."},
	{"reply_data", door_reply_data, METH_VARARGS, "Answer a read."},
	{"reply_ioctl", door_reply_ioctl, METH_VARARGS, "Answer an ioctl with 0 and the data to give back."},
	{"reply_written", door_reply_written, METH_VARARGS, "Answer a request with a number of bytes."},
	{"reply_error", door_reply_error, METH_VARARGS, "Answer a request with an errno."},
	{"sessions", door_sessions, METH_NOARGS, "Number of FUSE sessions that were made through this door."},
	{"libfuse_version", door_libfuse_version, METH_NOARGS, "Version of the libfuse in use."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT, .m_name = "_door", .m_doc = "What pyfuse3 lacks.", .m_size = -1, .m_methods = methods,
};

PyMODINIT_FUNC PyInit__door(void)
{
	PyObject *made = PyModule_Create(&module);

	if (!made || PyModule_AddIntMacro(made, NODE_OFFSET) < 0 ||
	    PyModule_AddStringConstant(made, "PASSTHROUGH_BY", PASSTHROUGH_BY) < 0 ||
	    PyModule_AddIntConstant(made, "IOCTL_DIR", FUSE_IOCTL_DIR) < 0)
		return NULL;
	return made;
}
