"""Which open files the kernel serves past us, from the host files that hold their zones (FUSE passthrough, Linux 6.9).

*What may pass us by*: reads of files that were opened read-only and without O_DIRECT, and mappings. While a file is
passed through for somebody, every open of it is marked, because the kernel wants all opens of an inode alike. One that
may do more gets direct I/O as well: its reads and writes come to us, and the write pointer stays enforced.

*The one open that cannot be marked* is O_RDWR of a sequential file: the kernel would let it map the host file and
store to it, around the write pointer. While such a handle is open, nothing of its inode is passed through. If it comes
while something is, it gets ESTALE: the kernel looks the name up again, finds another node of the same file, where
nothing is marked, and opens that. Its user notices nothing; who has the file open keeps the node he has.

*What was given cannot be taken back* by any message to the kernel. But if a node is looked up again and has another
generation, the kernel takes the old inode for one that was deleted, and every call on it fails with EIO: that is how
readers lose a zone that goes offline. Who has it open without reading past us keeps his node. Nobody may begin to read
by that any more, and the kernel would want him marked: so he gets ESTALE, too, until nobody is marked there.

*What is stored to a mapping of the host file* (of a conventional zone, open O_RDWR) nobody tells us. Where it is passed
through, all see it. But who comes by another node, which is not, has no page cache then: its pages would not show what
is stored, and if he stored to a mapping of his own, would be written back over it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from zonefs_py.errors import DeviceError, MountError, StaleNode, why_no_passthrough
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fuse import door

log = logging.getLogger(__name__)

MOST_BACKINGS = 65_536
"""Files that are open at one time and passed through: each holds a file open in the kernel. More are served by us."""

ZONES_TO_PROBE = 64

SECONDS_TO_COME_BACK = 5.0
"""How long a node is kept free for who got ESTALE. He comes at once, if the machine lets him and he was not killed."""


HostFile = tuple[int, int]
"""Numbers of a file's file system and inode on the host."""
NO_FILE: HostFile = (0, 0)


def host_file_of(descriptor: int) -> HostFile:
    """Return which file *descriptor* is open for. Raises OSError."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


class OpenMode(NamedTuple):
    """How the kernel is to treat an open file: see `door.reply_open`."""

    direct_io: bool
    backing: int

    @property
    def passes_by(self) -> bool:
        """Whether its reads will pass us by."""
        return self.backing != 0 and not self.direct_io


class Passed(NamedTuple):
    """A node by which a file is passed through."""

    number: int
    generation: int
    host_file: HostFile
    """What its readers read."""
    handles: Mapping[int, bool]
    """Whose opens name that file, and whether their reads pass us by."""


class _Node:
    """What the kernel takes for an inode. A file has one, as a rule."""

    __slots__ = ("backing", "generation", "host_file", "kept_free_until", "marked", "unmarked", "withdrawn")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.marked: dict[int, bool] = {}
        """Handles whose opens name the backing file, and whether their reads pass us by."""
        self.unmarked = 0
        self.kept_free_until = 0.0
        """Until when nothing may be marked, for who got ESTALE and is shown here: the kernel tries once more only."""
        self.backing = 0
        """Id of the backing file while there are marked handles."""
        self.host_file = NO_FILE
        """Which one that is."""
        self.withdrawn = False
        """Whether nobody who comes may read the backing file. False again when there are no marked handles."""

    def keep_free(self) -> None:
        """Somebody will come who cannot use this node once it is marked."""
        self.kept_free_until = time.monotonic() + SECONDS_TO_COME_BACK


class _File:
    """The nodes of one file, by number, and which of them a look-up finds."""

    __slots__ = ("_generations", "current", "doubts", "nodes", "storing")

    def __init__(self) -> None:
        self.nodes: dict[int, _Node] = {0: _Node(0)}
        self.current = 0
        self.doubts = 0
        """How often it has become doubtful whether the file may be passed through."""
        self.storing: set[int] = set()
        """Handles that may store to a mapping of the host file, their nodes being current or not. What is mapped is
        released when the mapping is gone."""
        self._generations: dict[int, int] = {}
        """Of nodes that are gone: the kernel may come back with one. None that is 0."""

    def node(self, number: int) -> _Node:
        """Return node *number*, by which the kernel knows the file (again) if there is none."""
        if number not in self.nodes:
            self.nodes[number] = _Node(self._generations.pop(number, 0))
        return self.nodes[number]

    def drop_idle(self) -> None:
        """Drop the nodes that nobody has open and no look-up finds."""
        for number, node in list(self.nodes.items()):
            if number != self.current and not (node.marked or node.unmarked):
                del self.nodes[number]
                if node.generation:
                    self._generations[number] = node.generation

    def is_plain(self) -> bool:
        """Whether nothing about it is worth remembering."""
        node = self.nodes.get(0)
        return (
            self.current == 0
            and len(self.nodes) == 1
            and not (self._generations or self.storing)
            and node is not None
            and not (node.generation or node.marked or node.unmarked)
        )


class Passthrough:
    """The passed-through files of one mount."""

    def __init__(self, filesystem: Filesystem, wanted: str) -> None:
        """*wanted* is ``auto``, ``on`` or ``off``."""
        self._fs = filesystem
        self._wanted = wanted
        self.active = False
        """Whether files are passed through."""
        self.reason: str | None = "the mount is not ready yet"
        """Why not; None if they are."""
        self._lock = threading.Lock()
        """Guards everything below. Nothing is called while it is held, but the door."""
        self._files: dict[int, _File] = {}
        """By inode number; a file that is not here has one node, and no handles."""
        self._handles: dict[int, tuple[int, _Node]] = {}
        """Inode number, number of the node, and node of each open handle."""
        self._nr_backings = 0

    def start(self, *, reaches_nodes: bool) -> None:
        """Find out whether files can be passed through; call it when the mount has answered a first request.

        *reaches_nodes*: each node of a file can be asked for, see `KernelCache.reaches_nodes`.
        Raises MountError if they must be and cannot.
        """
        self.reason = self._why_not(reaches_nodes=reaches_nodes)
        self.active = self.reason is None
        if self.reason is not None and self._wanted == "on":
            raise MountError(f"passthrough=on is not possible: {self.reason}")
        log.info("passthrough: %s", self.reason or "on")

    def _why_not(self, *, reaches_nodes: bool) -> str | None:
        if self._wanted == "off":
            return "switched off by the mount option passthrough=off"
        if not door.PASSTHROUGH_BY:
            return f"zonefs-py was built with libfuse {door.libfuse_version()}; it takes 3.13"
        if not door.has_passthrough():
            return "the kernel does not offer it; Linux 6.9 and newer can"
        for number in range(min(self._fs.info.nr_zones, ZONES_TO_PROBE)):
            try:
                descriptor = self._fs.device.backing_descriptor(number)
            except DeviceError as exc:
                return str(exc)
            if descriptor is not None:
                break
        else:
            return f"a device of kind {self._fs.info.kind} must see every read"
        try:
            door.close_backing(door.open_backing(descriptor))
        except OSError as exc:
            return why_no_passthrough(exc)
        finally:
            os.close(descriptor)
        if not reaches_nodes:
            return "it takes the capability CAP_DAC_READ_SEARCH"
        return None

    # Nodes

    def node(self, ino: int) -> tuple[int, int]:
        """Return the number and the generation of the node that a look-up of the file *ino* finds."""
        file = self._files.get(ino)
        if file is None:
            return 0, 0
        with self._lock:
            return file.current, file.nodes[file.current].generation

    def nodes(self, ino: int) -> list[int]:
        """Return the numbers of all nodes by which the kernel may know the file *ino*."""
        file = self._files.get(ino)
        if file is None:
            return [0]
        with self._lock:
            return list(file.nodes)

    def generations(self, ino: int) -> list[tuple[int, int]]:
        """Return the number and the generation of each of the `nodes` of the file *ino*."""
        file = self._files.get(ino)
        if file is None:
            return [(0, 0)]
        with self._lock:
            return [(number, node.generation) for number, node in file.nodes.items()]

    def is_split(self, ino: int) -> bool:
        """Whether the kernel may know the file *ino* by several nodes."""
        file = self._files.get(ino)
        return file is not None and len(file.nodes) > 1

    def is_renumbered(self, ino: int) -> bool:
        """Whether the kernel knows the file *ino* by another node than its first, or is about to."""
        file = self._files.get(ino)
        if file is None:
            return False
        with self._lock:
            return file.current != 0 or len(file.nodes) > 1 or file.nodes[0].generation != 0

    # Opening and closing

    def check_open(self, ino: int, number: int, flags: int, *, sequential: bool) -> None:
        """Raise StaleNode if node *number* of the file *ino* cannot be opened with *flags*, but another one can."""
        if ino not in self._files:
            return
        with self._lock:
            self._check_open(ino, number, flags & os.O_ACCMODE, sequential=sequential)

    def _check_open(self, ino: int, number: int, access: int, *, sequential: bool) -> None:
        """Do `check_open`, with the lock held."""
        file = self._files.get(ino)
        node = None if file is None else file.nodes.get(number)
        if file is None or node is None or not node.marked:
            return
        stores = sequential and access == os.O_RDWR
        if not stores and (not node.withdrawn or access == os.O_WRONLY):
            return
        current = file.nodes[file.current]
        if current.withdrawn or (stores and current.marked):
            # A look-up would find one that is not for him, either.
            file.current = max(file.nodes) + 1
            current = file.node(file.current)
        current.keep_free()
        why = "may not be read past the file system any more" if node.withdrawn else "is open for reading past it"
        raise StaleNode(f"inode {ino}, node {number} {why}: look it up again")

    def open(self, ino: int, number: int, handle: int, flags: int, *, sequential: bool) -> OpenMode:
        """Take note of *handle*, opened with *flags* by node *number*; return how the kernel is to treat it.

        Raises StaleNode, see `check_open`: the handle has not been noted then. For trio's thread only.
        """
        access = flags & os.O_ACCMODE
        direct = bool(flags & os.O_DIRECT)
        # What does not read past us if it is marked.
        checked = direct or access != os.O_RDONLY
        # Without passthrough: a sequential file is never cached: what the device has is what is read, and the device
        # answers a write. A conventional file has a page cache, as kernel zonefs has for it: shared mappings need one.
        # Not with O_DIRECT: the kernel's direct I/O on a cached FUSE file does not take a short write at the end of the
        # file for one.
        with self._lock:
            self._check_open(ino, number, access, sequential=sequential)
            file = self._files.setdefault(ino, _File())
            unmarked = OpenMode(sequential or direct or bool(file.storing), 0)
            node = file.node(number)
            begins = not node.backing and self._may_begin(node, access, sequential=sequential)
            if not begins:
                if node.backing and access == os.O_RDWR:
                    file.storing.add(handle)
                return self._note(ino, node, handle, checked, unmarked)
            doubts = file.doubts
        # Only trio's thread opens and releases files: nobody else gives the node a backing file meanwhile.
        backing, host_file = self._open_backing(handle)
        with self._lock:
            # If nobody had it open, it may have been dropped.
            node = file.node(number)
            if backing and file.doubts != doubts:
                # Who asked whether that may still be read did not find this handle.
                self._drop_backing(backing)
            else:
                node.backing, node.host_file = backing, host_file
            return self._note(ino, node, handle, checked, unmarked)

    def _note(self, ino: int, node: _Node, handle: int, direct_io: bool, unmarked: OpenMode) -> OpenMode:
        """Note *handle* by *node*, with the lock held; return how the kernel is to treat it.

        That is with *direct_io*, or not, if the node has a backing file, as *unmarked* says if not.
        """
        self._handles[handle] = (ino, node)
        if not node.backing:
            node.unmarked += 1
            return unmarked
        node.marked[handle] = not direct_io
        return OpenMode(direct_io, node.backing)

    def _may_begin(self, node: _Node, access: int, *, sequential: bool) -> bool:
        if not self.active or node.unmarked or self._nr_backings >= MOST_BACKINGS:
            return False
        if node.kept_free_until and time.monotonic() < node.kept_free_until:
            return False
        # A conventional file that somebody writes has a page cache of FUSE's, where mappings and all reads are one.
        return access == os.O_RDONLY or (sequential and access == os.O_WRONLY)

    def _open_backing(self, handle: int) -> tuple[int, HostFile]:
        """Return the id of the backing file of an open file, 0 if it has none, and which file it is."""
        try:
            descriptor = self._fs.backing_descriptor(handle, wait=False)
            if descriptor is None:
                return 0, NO_FILE
            try:
                number, host_file = door.open_backing(descriptor), host_file_of(descriptor)
            finally:
                os.close(descriptor)
        except (DeviceError, OSError) as exc:
            log.warning("passthrough: %s", exc)
            return 0, NO_FILE
        with self._lock:
            self._nr_backings += 1
        return number, host_file

    def release(self, handle: int) -> None:
        """Forget *handle*."""
        with self._lock:
            ino, node = self._handles.pop(handle)
            file = self._files[ino]
            file.storing.discard(handle)
            if node.marked.pop(handle, None) is None:
                node.unmarked -= 1
            elif not node.marked:
                node.withdrawn = False
                self._close_backing(node)
            file.drop_idle()
            if file.is_plain():
                del self._files[ino]

    def _close_backing(self, node: _Node) -> None:
        backing, node.backing = node.backing, 0
        if backing:
            self._drop_backing(backing)

    def _drop_backing(self, backing: int) -> None:
        self._nr_backings -= 1
        try:
            door.close_backing(backing)
        except OSError as exc:
            # After the connection has ended there is nothing to close.
            log.debug("backing file %d: %s", backing, exc)

    # Taking back

    def doubt(self, ino: int) -> list[Passed]:
        """Return the nodes by which the file *ino* is passed through: to be asked whether it may be.

        Who opens the file just now, and asked that before, is not passed through. So call this after what may have
        changed the answer.
        """
        file = self._files.get(ino)
        if file is None:
            return []
        with self._lock:
            file.doubts += 1
            return [
                Passed(number, node.generation, node.host_file, dict(node.marked))
                for number, node in file.nodes.items()
                if node.marked
            ]

    def withdraw(self, ino: int, nodes: list[Passed]) -> Iterator[None]:
        """Let nobody who comes read the file *ino* past us by *nodes*, which `doubt` gave, nor who does so now.

        For the latter each node that has such readers gets another generation, with all handles that it has; after each
        the iterator stops. Then a look-up of the file finds that node: it must be made before going on, for them to
        lose it.
        """
        generations = {node.number: node.generation for node in nodes}
        file = self._files.get(ino)
        if file is not None:
            with self._lock:
                for number, generation in generations.items():
                    node = file.nodes.get(number)
                    if node is not None and node.generation == generation:
                        node.withdrawn = bool(node.marked)

        def concerned(number: int, node: _Node) -> bool:
            return generations.get(number) == node.generation and any(node.marked.values())

        return self._renew(ino, concerned)

    def take_back(self, ino: int) -> Iterator[None]:
        """Give each node by which the file *ino* is open in any way another generation, and stop after each."""
        return self._renew(ino, lambda _, node: bool(node.marked or node.unmarked))

    def _renew(self, ino: int, concerned: Callable[[int, _Node], bool]) -> Iterator[None]:
        with self._lock:
            file = self._files.get(ino)
            numbers = [] if file is None else [number for number, node in file.nodes.items() if concerned(number, node)]
        for number in numbers:
            with self._lock:
                assert file is not None
                old = file.nodes.get(number)
                if old is None or not concerned(number, old):
                    continue  # closed meanwhile
                kept_free_until = file.nodes[file.current].kept_free_until
                # Its handles stay with it until they are released.
                file.nodes[number] = _Node(old.generation + 1)
                file.nodes[number].kept_free_until = kept_free_until
                file.current = number
                self._files[ino] = file
                self._close_backing(old)
            yield
        # The kernel has learnt of each of them, but it opens the last one only.
        if file is not None:
            with self._lock:
                file.drop_idle()
