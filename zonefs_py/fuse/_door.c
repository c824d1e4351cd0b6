/*
 * What pyfuse3 lacks, let in by a side door.
 *
 * pyfuse3 calls libfuse through the dynamic linker. This extension is loaded
 * with RTLD_GLOBAL before pyfuse3, so the functions that it defines under
 * libfuse's names are the ones that pyfuse3 gets; each of them goes on to the
 * real one in libfuse3.so.3. pyfuse3 itself stays as it is.
 *
 *  fuse_session_new       a copy of pyfuse3's operation table is changed:
 *    - read, write: the open file's *current* flags (O_DIRECT, O_APPEND, O_DSYNC; fcntl
 *      can change them after open) are put into the upper bits of the handle,
 *      because pyfuse3 passes no flags on;
 *    - copy_file_range, which pyfuse3 does not know, is handed to Python, which
 *      answers later by reply_written or reply_error;
 *    - ioctl likewise, answered by reply_ioctl or reply_error;
 *    - getxattr and its kin, access, flush, poll are taken out: libfuse then
 *      answers ENOSYS, and the kernel never asks again;
 *    - init: data comes by read() rather than by a pipe (splice costs more
 *      than it saves when the data ends in a Python object anyway).
 *  fuse_reply_entry, fuse_add_direntry_plus
 *                         the node id is the inode number plus one: node 1
 *                         must be the root, while inode 1 is zone 1's file.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define FUSE_USE_VERSION 312
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>

/* Our own definitions below must keep libfuse's exported names. */
#include <fuse_lowlevel.h>
#undef fuse_session_new

#define NODE_OFFSET 1
#define HANDLE_DIRECT (UINT64_C(1) << 62)
#define HANDLE_APPEND (UINT64_C(1) << 61)
#define HANDLE_SYNC (UINT64_C(1) << 60)

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

static struct fuse_file_info with_flags(const struct fuse_file_info *fi)
{
	struct fuse_file_info copy = *fi;

	/* A page written back from a mapping: the flags of whoever has the file open say nothing about it. */
	if (fi->writepage)
		return copy;
	if (fi->flags & O_DIRECT)
		copy.fh |= HANDLE_DIRECT;
	if (fi->flags & O_APPEND)
		copy.fh |= HANDLE_APPEND;
	if (fi->flags & O_DSYNC)
		copy.fh |= HANDLE_SYNC;
	return copy;
}

static void door_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		      struct fuse_file_info *fi)
{
	struct fuse_file_info copy = with_flags(fi);

	original.read(req, ino, size, off, &copy);
}

static void door_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *bufv,
			   off_t off, struct fuse_file_info *fi)
{
	struct fuse_file_info copy = with_flags(fi);

	original.write_buf(req, ino, bufv, off, &copy);
}

static PyObject *copy_handler;              /* what Python registered for copy_file_range */

/*
 * Called by libfuse within fuse_session_process_buf, that is on trio's thread
 * with the GIL held. The handler only starts a task; that answers.
 */
static void door_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in, struct fuse_file_info *fi_in,
				 fuse_ino_t ino_out, off_t off_out, struct fuse_file_info *fi_out, size_t len,
				 int flags)
{
	PyObject *done;

	(void)ino_in;
	(void)ino_out;
	if (!copy_handler) {
		fuse_reply_err(req, EIO);
		return;
	}
	done = PyObject_CallFunction(copy_handler, "KKLKLKi", (unsigned long long)(uintptr_t)req,
				     (unsigned long long)fi_in->fh, (long long)off_in,
				     (unsigned long long)fi_out->fh, (long long)off_out,
				     (unsigned long long)len, flags);
	if (!done) {
		PyErr_WriteUnraisable(copy_handler);
		fuse_reply_err(req, EIO);
		return;
	}
	Py_DECREF(done);
}

static PyObject *ioctl_handler;             /* what Python registered for ioctl */

/* As door_copy_file_range. The data is copied into a bytes object: the request's buffer is gone when we return. */
static void door_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned int cmd, void *arg, struct fuse_file_info *fi,
		       unsigned int flags, const void *in_buf, size_t in_bufsz, size_t out_bufsz)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	PyObject *done;

	(void)ino;
	(void)arg;
	if (!ioctl_handler) {
		fuse_reply_err(req, ENOTTY);
		return;
	}
	done = PyObject_CallFunction(ioctl_handler, "KKIIy#KIII", (unsigned long long)(uintptr_t)req,
				     (unsigned long long)fi->fh, cmd, flags,
				     in_buf ? (const char *)in_buf : "", (Py_ssize_t)(in_buf ? in_bufsz : 0),
				     (unsigned long long)out_bufsz, (unsigned int)ctx->uid, (unsigned int)ctx->gid,
				     (unsigned int)ctx->pid);
	if (!done) {
		PyErr_WriteUnraisable(ioctl_handler);
		fuse_reply_err(req, EIO);
		return;
	}
	Py_DECREF(done);
}

static void door_init(void *userdata, struct fuse_conn_info *conn)
{
	original.init(userdata, conn);
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

static const struct fuse_lowlevel_ops *change(const struct fuse_lowlevel_ops *ops, size_t size)
{
	if (size > sizeof(original))
		size = sizeof(original);
	memset(&original, 0, sizeof(original));
	memcpy(&original, ops, size);
	changed = original;
	changed.init = door_init;
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

#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17)
EXPORT struct fuse_session *
fuse_session_new_versioned(struct fuse_args *args, const struct fuse_lowlevel_ops *ops, size_t size,
			   struct libfuse_version *version, void *userdata)
{
	struct fuse_session *(*real)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t,
				     struct libfuse_version *, void *) = libfuse("fuse_session_new_versioned");

	return real(args, change(ops, size), sizeof(changed), version, userdata);
}
#else
EXPORT struct fuse_session *
fuse_session_new(struct fuse_args *args, const struct fuse_lowlevel_ops *ops, size_t size, void *userdata)
{
	struct fuse_session *(*real)(struct fuse_args *, const struct fuse_lowlevel_ops *, size_t, void *) =
		libfuse("fuse_session_new");

	return real(args, change(ops, size), sizeof(changed), userdata);
}
#endif

static struct fuse_entry_param with_node(const struct fuse_entry_param *e)
{
	struct fuse_entry_param copy = *e;

	copy.ino += NODE_OFFSET;
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

static PyObject *door_set_copy_handler(PyObject *self, PyObject *handler)
{
	(void)self;
	Py_INCREF(handler);
	Py_XSETREF(copy_handler, handler);
	Py_RETURN_NONE;
}

static PyObject *door_set_ioctl_handler(PyObject *self, PyObject *handler)
{
	(void)self;
	Py_INCREF(handler);
	Py_XSETREF(ioctl_handler, handler);
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
	return PyLong_FromLong(fuse_reply_ioctl((fuse_req_t)(uintptr_t)req, 0, data, (size_t)size));
}

static PyObject *door_reply_written(PyObject *self, PyObject *args)
{
	unsigned long long req, count;

	(void)self;
	if (!PyArg_ParseTuple(args, "KK", &req, &count))
		return NULL;
	return PyLong_FromLong(fuse_reply_write((fuse_req_t)(uintptr_t)req, (size_t)count));
}

static PyObject *door_reply_error(PyObject *self, PyObject *args)
{
	unsigned long long req;
	int number;

	(void)self;
	if (!PyArg_ParseTuple(args, "Ki", &req, &number))
		return NULL;
	return PyLong_FromLong(fuse_reply_err((fuse_req_t)(uintptr_t)req, number));
}

static PyMethodDef methods[] = {
	{"set_copy_handler", door_set_copy_handler, METH_O,
	 "Register who gets copy_file_range: (request, handle_in, offset_in, handle_out, offset_out, length, flags)."},
	{"set_ioctl_handler", door_set_ioctl_handler, METH_O,
	 "Register who gets ioctls: (request, handle, command, flags, data, output size, uid, gid, pid)."},
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
	    PyModule_AddIntConstant(made, "IOCTL_DIR", FUSE_IOCTL_DIR) < 0 ||
	    PyModule_AddObject(made, "HANDLE_DIRECT", PyLong_FromUnsignedLongLong(HANDLE_DIRECT)) < 0 ||
	    PyModule_AddObject(made, "HANDLE_APPEND", PyLong_FromUnsignedLongLong(HANDLE_APPEND)) < 0 ||
	    PyModule_AddObject(made, "HANDLE_SYNC", PyLong_FromUnsignedLongLong(HANDLE_SYNC)) < 0)
		return NULL;
	return made;
}
