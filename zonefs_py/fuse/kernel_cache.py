"""What the kernel keeps of our inodes: names, attributes, pages, and how it is made to forget them, or to ask again.

*A size is not forgotten.* A notification makes the kernel ask for the attributes when an application does. Until then
it decides by the size that it has where a copy_file_range ends, where RWF_APPEND writes, and which pages of a mapping
there are. So where a size changes in another way than by a request for that very node, we have the kernel ask
for it, before the change is answered: by a statx of the node, through the mount.

*Nor is it always taken.* While the kernel cuts a file, or writes or copies behind its end, it takes no other size for
that node; if the call fails, the one that it has stays. Who is told so asks again later.
"""

from __future__ import annotations

import logging
import os

from zonefs_py.errors import PowerLost, is_disconnected, is_forgotten, is_write_protected
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fuse import door
from zonefs_py.fuse.door import ROOT_NODE, file_node, pyfuse3
from zonefs_py.fuse.passthrough import Passthrough

log = logging.getLogger(__name__)


class KernelCache:
    """What the kernel keeps of one mount.

    Every method waits for the kernel, and the kernel for the answers to requests: none is for the thread that answers
    them, but for `forget` with ``attr_only``.
    """

    def __init__(self, filesystem: Filesystem, passthrough: Passthrough) -> None:
        self._fs = filesystem
        self._passthrough = passthrough
        self._mountpoint: str | None = None
        self._device = 0
        self.reaches_nodes = False
        """Whether each node of a file can be asked for, not only the one that the file's name leads to."""

    def begin(self, mountpoint: str) -> None:
        """Take note that the mount at *mountpoint* answers. Raises OSError."""
        mount = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._device = os.fstat(mount).st_dev
            door.refresh(mount, ROOT_NODE, 0)
            self.reaches_nodes = True
        except OSError as exc:
            if not is_write_protected(exc):
                raise
            log.debug("inodes cannot be found by handles: %s", exc)
        finally:
            os.close(mount)
        self._mountpoint = mountpoint

    def forget(self, ino: int, *, attr_only: bool, but: int | None = None) -> None:
        """Have the kernel forget the attributes, and the pages unless *attr_only*, of all nodes of *ino* *but* one.

        *ino* can be a directory, which has no pages. Changed pages are written back first.
        """
        for number in self._passthrough.nodes(ino):
            if number == but:
                continue
            node = ROOT_NODE if ino == self._fs.root else file_node(ino, number)
            try:
                pyfuse3.invalidate_inode(pyfuse3.InodeT(node), attr_only=attr_only)
            except OSError as exc:
                # ENOENT: the kernel has forgotten the inode, which is as good.
                log.debug("inode %d: %s", ino, exc)

    def refresh(self, ino: int, but: int | None = None) -> bool:
        """Have the kernel ask for the attributes of all nodes of *ino* *but* one, and so learn its size.

        Return False if it has not taken the size of one: then it will later, if asked again. Where the mount cannot be
        reached by its path any more (after ``umount -l``, say), nothing happens.
        """
        mountpoint = self._mountpoint
        taken = True
        if mountpoint is None:
            return taken
        try:
            mount = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            log.debug("inode %d: %s", ino, exc)
            return taken
        try:
            if os.fstat(mount).st_dev != self._device:
                log.debug("inode %d: another file system is mounted at %s", ino, mountpoint)
                return taken
            for number, generation in self._passthrough.generations(ino):
                if number != but:
                    taken &= self._refresh_node(mount, ino, number, generation)
        except OSError as exc:
            if not is_disconnected(exc):
                log.warning("inode %d: the kernel may take it for larger or smaller than it is: %s", ino, exc)
        finally:
            os.close(mount)
        return taken

    def _refresh_node(self, mount: int, ino: int, number: int, generation: int) -> bool:
        try:
            if self.reaches_nodes:
                return door.refresh(mount, file_node(ino, number), generation) == self._fs.getattr(ino).size
            # There is one, see `Passthrough.start`.
            os.stat(self._fs.path(ino), dir_fd=mount, follow_symlinks=False)
        except OSError as exc:
            if not is_forgotten(exc):
                raise
            log.debug("inode %d: %s", ino, exc)
        except PowerLost as exc:
            log.debug("inode %d: %s", ino, exc)
        return True

    def look_up_again(self, ino: int) -> None:
        """Have the kernel look the file *ino* up by its name."""
        directory, name = self._fs.place(ino)
        try:
            pyfuse3.invalidate_entry(pyfuse3.InodeT(file_node(directory)), name)
        except OSError as exc:
            log.debug("inode %d: %s", ino, exc)
        path = self._fs.path(ino)
        try:
            os.stat(os.path.join(self._mountpoint or "", path))
        except OSError as exc:
            log.warning("%s: who reads zone file %s may go on: %s", self._mountpoint, path, exc)
