"""A plain model of a zonefs file system, written from measurements of the kernel's: what must be answered to what.

Rules of the room. It shares no code with zonefs_py but the words of `zonefs_py.zone`. An operation does nothing
by itself: it returns *branches*, each an outcome (a value, or the name of an errno) with what it leads to.
Mostly there is one; where the contract leaves something open there are more, and the machine takes the one that
the system under test chose (`choose`). What a result does not tell, such as where a failed write left the write
pointer, `Oracle.adopt` reads from an observation. A branch that refuses changes nothing unless the errors=
policy says so.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from zonefs_py.zone import Geometry, ZoneCondition

from .zones import BAD, EXP_OPEN, FULL, IMP_OPEN, OFFLINE, READONLY, ModelDevice, ModelZone, ReportedZone

NAME_MAX = 16


@dataclass(frozen=True)
class Options:
    """Mount options; ``errors`` as it is written after ``errors=``."""

    errors: str = "remount-ro"
    explicit_open: bool = False
    read_only: bool = False


@dataclass(frozen=True)
class Format:
    """What mkfs was told. None: the feature is left out."""

    aggregate: bool = False
    uid: int | None = None
    gid: int | None = None
    permissions: int | None = None


@dataclass(frozen=True)
class Setup:
    """A device and how it is formatted and mounted at first."""

    geometry: Geometry
    max_open: int | None = None
    max_active: int | None = None
    format: Format = field(default_factory=Format)
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Stat:
    """What stat(2) tells; times in nanoseconds, ``blocks`` of 512 bytes."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    blocks: int
    block_size: int
    atime: int
    mtime: int
    ctime: int


@dataclass(frozen=True)
class Statfs:
    """What statfs(2) tells of what zonefs decides."""

    block_size: int
    blocks: int
    blocks_free: int
    files: int
    name_max: int


@dataclass(frozen=True)
class Counters:
    """The four sysfs attributes; 0 means no limit."""

    max_wro_seq_files: int
    nr_wro_seq_files: int
    max_active_seq_files: int
    nr_active_seq_files: int


@dataclass(frozen=True)
class Observation:
    """Everything that can be seen without changing anything: taken after each step."""

    stats: Mapping[str, Stat]
    report: Sequence[ReportedZone]
    counters: Counters
    statfs: Statfs
    read_only: bool


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Branch:
    """One admitted outcome: an errno name, or a value when ``errno`` is None; and what it does to the model."""

    errno: str | None = None
    value: Any = None
    effect: Callable[[], None] = _nothing

    def admits(self, errno: str | None, value: Any) -> bool:
        """Whether this is what happened. A value of None stands for any."""
        return self.errno == errno and (errno is not None or self.value is None or self.value == value)


def refuse(*errnos: str) -> list[Branch]:
    """Refused with one of *errnos*, nothing changed."""
    return [Branch(errno) for errno in errnos]


def accept(value: Any = None, effect: Callable[[], None] = _nothing) -> list[Branch]:
    """The only outcome is *value*."""
    return [Branch(None, value, effect)]


def choose(branches: Iterable[Branch], errno: str | None, value: Any) -> Branch:
    """Return the branch that was taken; AssertionError if the contract has none such."""
    branches = list(branches)
    for branch in branches:
        if branch.admits(errno, value):
            return branch
    expected = " or ".join(branch.errno or f"{_short(branch.value)}" for branch in branches)
    raise AssertionError(f"expected {expected}, got {errno or _short(value)}")


def _short(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes {bytes(value[:16]).hex(' ', 8)}.."
    return f"result {value!r}"


@dataclass
class Moment:
    """A timestamp: exactly known, or something at or after ``since``, or either."""

    exact: int | None = None
    since: int | None = None

    def admits(self, time: int) -> bool:
        """Whether *time* can be it."""
        if self.exact is None and self.since is None:
            return True
        return time == self.exact or (self.since is not None and time >= self.since)


@dataclass
class ModelNode:
    """A file or directory. ``mode`` has the type bits."""

    path: str
    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    capacity: int
    block_size: int
    atime: Moment = field(default_factory=Moment)
    mtime: Moment = field(default_factory=Moment)
    ctime: Moment = field(default_factory=Moment)
    losable_mode: int = 0
    """Mode bits that the last operation may have cleared: chown and a truncate clear set-id bits in most kernels."""

    @property
    def is_directory(self) -> bool:
        """Whether it is the root or a group."""
        return stat.S_ISDIR(self.mode)


@dataclass
class ModelFile(ModelNode):
    """A zone file: a view of its zone, which may be behind what the device says."""

    zone: int = 0
    nr_zones: int = 1
    conventional: bool = False
    read_only: bool = False
    offline: bool = False
    held_open: bool = False
    """Opened on the device by explicit-open, to be closed with the last write handle."""
    write_handles: int = 0

    @property
    def immutable(self) -> bool:
        """Error handling took the write permission away."""
        return self.read_only or self.offline

    @property
    def unreadable(self) -> bool:
        """Degraded, and of mode 000: by error handling, or because chmod had taken the other bits before."""
        return self.immutable and not self.mode & 0o777

    @property
    def partly_written(self) -> bool:
        """Neither empty nor full, as the file system sees it."""
        return 0 < self.size < self.capacity


@dataclass(frozen=True)
class Handle:
    """An open file: access mode and the flags that later calls go by."""

    path: str
    reads: bool
    writes: bool
    direct: bool
    append: bool


class Oracle:
    """One formatted device and its mount. Paths are ``""`` for the root, ``"cnv"``, ``"seq/3"``."""

    def __init__(self, setup: Setup, now: int = 0) -> None:
        """Format the device and mount it at *now* (nanoseconds since the epoch)."""
        self.setup = setup
        self.now = now
        """When the operation that is asked about begins; times that it sets are this or later."""
        self.device = ModelDevice(setup.geometry, setup.max_open, setup.max_active)
        self.options = setup.options
        self.read_only = False
        self.nodes: dict[str, ModelNode] = {}
        self.handles: dict[int, Handle] = {}
        self.write_fault: str | None = None
        """Path of the file whose next device write fails, after any number of blocks of it."""
        self.read_fault: str | None = None
        """Path of the file whose next device read fails."""
        self._torn: tuple[ModelFile, int, bytes] | None = None
        self._perhaps_settled: ModelFile | None = None
        self._mount()

    # The tree.

    @property
    def files(self) -> list[ModelFile]:
        """All zone files."""
        return [node for node in self.nodes.values() if isinstance(node, ModelFile)]

    def file(self, path: str) -> ModelFile:
        """The file of that path."""
        node = self.nodes[path]
        assert isinstance(node, ModelFile)
        return node

    def zone_of(self, file: ModelFile) -> ModelZone:
        """The (first) zone of *file*."""
        return self.device.zones[file.zone]

    def content(self, file: ModelFile) -> bytes:
        """What the device holds over the whole capacity of *file*."""
        zones = self.device.zones[file.zone : file.zone + file.nr_zones]
        return b"".join(bytes(zone.content) for zone in zones)

    def _mount(self) -> None:
        self.mounted_read_only = self.read_only = self.options.read_only
        if self.setup.max_open is None and self.setup.max_active is None:
            # A mount of a device that has no limits ignores explicit-open; a remount does not.
            self.options = replace(self.options, explicit_open=False)
        self.nodes = {}
        self.handles = {}
        self.device.power_cycle()
        zones = self.device.zones
        conventional = [zone for zone in zones[1:] if zone.conventional]
        sequential = [zone for zone in zones[1:] if not zone.conventional]
        files = []
        if conventional and self.setup.format.aggregate:
            files.append(self._make_file("cnv/0", conventional))
        else:
            files += [self._make_file(f"cnv/{index}", [zone]) for index, zone in enumerate(conventional)]
        files += [self._make_file(f"seq/{index}", [zone]) for index, zone in enumerate(sequential)]
        groups = [name for name, members in (("cnv", conventional), ("seq", sequential)) if members]
        self._add_directory("", len(zones), 2 + len(groups), 2 + len(groups))
        for name in groups:
            count = sum(file.path.startswith(name) for file in files)
            self._add_directory(name, len(zones) + ("cnv", "seq").index(name) + 1, 2, count)
        for file in files:
            self.nodes[file.path] = file
        for node in self.nodes.values():
            node.atime, node.mtime, node.ctime = (Moment(since=self.now) for _ in range(3))

    def _add_directory(self, path: str, ino: int, nlink: int, size: int) -> None:
        block_size = self.device.block_size
        self.nodes[path] = ModelNode(path, ino, stat.S_IFDIR | 0o555, nlink, 0, 0, size, 0, block_size)

    def _make_file(self, path: str, zones: list[ModelZone]) -> ModelFile:
        chosen = self.setup.format
        permissions = 0o640 if chosen.permissions is None else chosen.permissions
        capacity = sum(zone.capacity for zone in zones)
        first = zones[0]
        file = ModelFile(
            path=path,
            ino=first.number,
            mode=stat.S_IFREG | permissions,
            nlink=1,
            uid=chosen.uid or 0,
            gid=chosen.gid or 0,
            size=capacity if first.conventional else first.data_size(),
            capacity=capacity,
            block_size=self.device.block_size,
            zone=first.number,
            nr_zones=len(zones),
            conventional=first.conventional,
        )
        if first.condition in BAD:  # found so at mount: both kinds are mode 000 and empty
            self._take_offline(file)
            file.size = 0
        return file

    def largest_file(self) -> int:
        """No file can ever be larger, in bytes (s_maxbytes)."""
        return max(file.capacity for file in self.files)

    # What can be seen.

    def stat_of(self, path: str) -> ModelNode:
        """The node, to be compared field by field."""
        return self.nodes[path]

    def lookup(self, parent: str, name: bytes) -> list[Branch]:
        """Look *name* up in *parent*; the value is the inode number."""
        node = self.nodes[parent]
        if not node.is_directory:
            return refuse("ENOTDIR")
        if len(name) > NAME_MAX:
            return refuse("ENAMETOOLONG")
        path = f"{parent}/{name.decode(errors='replace')}".lstrip("/")
        if b"/" in name or path not in self.nodes:
            return refuse("ENOENT")
        return accept(self.nodes[path].ino)

    def readdir(self, path: str) -> list[tuple[bytes, int, bool]]:
        """Name, inode number and whether it is a directory, in the order of getdents."""
        self.may_touch(self.nodes[path])
        above = self.nodes[""] if path else self.nodes[path]
        entries = [(b".", self.nodes[path].ino, True), (b"..", above.ino, True)]
        for node in self.nodes.values():
            parent, _, name = node.path.rpartition("/")
            if node.path and parent == path:
                entries.append((name.encode(), node.ino, node.is_directory))
        return entries

    def statfs(self) -> Statfs:
        """Sums over all files; conventional ones count as written."""
        block_size = self.device.block_size
        files = self.files
        free = sum(file.capacity - file.size for file in files if not file.conventional)
        groups = sum(node.is_directory for node in self.nodes.values()) - 1
        total = sum(file.capacity for file in files)
        return Statfs(block_size, total // block_size, free // block_size, len(files) + groups, NAME_MAX)

    def counters(self) -> tuple[Counters, Counters]:
        """Lowest and highest admitted counters.

        They differ where error handling made a partly written file immutable: whether that one is active is open.
        """
        sequential = [file for file in self.files if not file.conventional]
        writing = sum(file.write_handles > 0 for file in sequential)
        sure = sum(file.held_open or (file.partly_written and not file.immutable) for file in sequential)
        perhaps = sum(file.immutable and file.partly_written and not file.held_open for file in sequential)
        limits = (self.setup.max_open or 0, self.setup.max_active or 0)
        return (
            Counters(limits[0], writing, limits[1], sure),
            Counters(limits[0], writing, limits[1], sure + perhaps),
        )

    def disturbed(self, file: ModelFile) -> bool:
        """Whether device and view of *file* differ, or a read of it would lead to error handling."""
        zone = self.zone_of(file)
        if file.conventional:
            return False
        return zone.condition in BAD or zone.lazily_moved or zone.data_size() != file.size

    # Opening and closing.

    def open(self, path: str, number: int, handle: Handle, *, truncates: bool = False) -> list[Branch]:
        """Open *path* as *handle*, to be known by *number*."""
        node = self.nodes[path]
        if not isinstance(node, ModelFile):
            return refuse("EISDIR")
        changes = handle.writes or truncates
        if changes and self.read_only:
            return refuse("EROFS")
        if changes and node.immutable:
            return refuse("EPERM")
        if truncates and node.conventional:
            return refuse("EPERM")
        opens_zone = False
        if handle.writes and not node.conventional:
            if refused := self._refuses_write_open(node):
                return refuse(refused)
            opens_zone = self._open_is_explicit(node)
        if truncates and node.size and (refused := self.device.refuses_reset(node.zone)):
            return refuse(refused)

        def effect() -> None:
            if opens_zone:
                self.device.open(node.zone)
                node.held_open = True
            if handle.writes:
                node.write_handles += 1
            if truncates:
                self._reset(node)
                self._modified(node)
            self.handles[number] = handle

        return accept(None, effect)

    def _open_is_explicit(self, file: ModelFile) -> bool:
        return self.options.explicit_open and not file.write_handles and file.size < file.capacity

    def _refuses_write_open(self, file: ModelFile) -> str | None:
        if file.write_handles or not self.options.explicit_open:
            return None
        writing = sum(other.write_handles > 0 for other in self.files if not other.conventional)
        if self.setup.max_open is not None and writing >= self.setup.max_open:
            return "EBUSY"
        if self._open_is_explicit(file):
            return self.device.refuses_open(file.zone)
        return None

    def close(self, number: int) -> list[Branch]:
        """Close handle *number*; close(2) always succeeds, also when the device cannot close a zone gone bad.

        Not measured: that such a failure leads to error handling, as any failed operation on an open zone does.
        """

        def effect() -> None:
            handle = self.handles.pop(number)
            file = self.file(handle.path)
            if handle.writes:
                file.write_handles -= 1
                if not file.write_handles and file.held_open:
                    self._let_go(file)

        return accept(None, effect)

    def _let_go(self, file: ModelFile) -> None:
        file.held_open = False
        if self.device.refuses_close(file.zone):
            self._handle_error(file, wrote=False)
        else:
            self.device.close(file.zone)
            if file.size == 0:
                self._perhaps_settled = file  # kernel zonefs resets what it thinks was never written

    # Writing.

    def write(self, number: int, offset: int, data: bytes, *, append: bool | None = None) -> list[Branch]:
        """Write *data*; the value is the number of bytes written. *append* None: as the handle was opened."""
        handle = self.handles[number]
        if not handle.writes:
            return refuse("EBADF")
        file = self.file(handle.path)
        appends = handle.append if append is None else append
        if file.immutable:
            return refuse("EPERM")
        if self.read_only:
            return refuse("EROFS")
        if file.conventional:
            return self._write_conventional(file, handle, offset, data, appends)
        return self._write_sequential(file, handle, offset, data, appends)

    def _write_conventional(
        self, file: ModelFile, handle: Handle, offset: int, data: bytes, appends: bool
    ) -> list[Branch]:
        if not data:
            return accept(0)
        if offset >= file.capacity:
            return refuse("EFBIG")
        if appends:
            return refuse("EINVAL")
        data = data[: file.capacity - offset]
        if handle.direct and not self._aligned(offset, len(data)):
            return refuse("EINVAL")
        if self.write_fault == file.path:
            return [Branch("EIO", effect=self._clear_write_fault)]
        return accept(len(data), lambda: self._store(file, offset, data))

    def _write_sequential(
        self, file: ModelFile, handle: Handle, offset: int, data: bytes, appends: bool
    ) -> list[Branch]:
        if offset >= file.capacity and not appends:
            return refuse("EFBIG")
        if not handle.direct:
            return refuse("EIO")
        if appends:
            if file.size == file.capacity:
                return refuse("EFBIG") if data else [*accept(0), *refuse("EFBIG")]
            offset = file.size
        if not data:
            return accept(0)
        data = data[: file.capacity - offset]
        if not self._aligned(offset, len(data)) or offset != file.size:
            return refuse("EINVAL")
        if refused := self.device.refuses_write(file.zone, offset):
            return [Branch(refused, effect=lambda: self._handle_error(file, wrote=True))]
        if self.write_fault == file.path:
            return [Branch("EIO", effect=lambda: self._tear(file, offset, data))]

        def effect() -> None:
            self.device.write(file.zone, offset, data)
            self._set_size(file, offset + len(data))

        return accept(len(data), effect)

    def _aligned(self, *values: int) -> bool:
        return all(value % self.device.block_size == 0 for value in values)

    def _store(self, file: ModelFile, offset: int, data: bytes) -> None:
        for number in range(file.zone, file.zone + file.nr_zones):
            zone = self.device.zones[number]
            begin, end = max(offset, 0), min(offset + len(data), zone.capacity)
            if begin < end:
                self.device.write(number, begin, data[begin - offset : end - offset])
            offset -= zone.capacity

    def _clear_write_fault(self) -> None:
        self.write_fault = None

    def _tear(self, file: ModelFile, offset: int, data: bytes) -> None:
        self.write_fault = None
        self._torn = (file, offset, data)

    def _set_size(self, file: ModelFile, size: int) -> None:
        file.size = size
        if size >= file.capacity:  # a full zone is neither open nor active
            file.held_open = False

    # Reading.

    def read(self, number: int, offset: int, length: int) -> list[Branch]:
        """Read; the value is the data."""
        handle = self.handles[number]
        if not handle.reads:
            return refuse("EBADF")
        file = self.file(handle.path)
        if file.unreadable:
            return refuse("EPERM")
        if offset >= file.size:
            return accept(b"", effect=lambda: self.may_touch(file))
        if not length:
            unaligned = handle.direct and not self._aligned(offset)
            return accept(b"") + (refuse("EINVAL") if unaligned else [])
        wanted = min(length, file.size - offset)
        if handle.direct and not self._aligned(offset, wanted):
            return refuse("EINVAL")
        if refused := self.device.refuses_read(file.zone):
            return [Branch(refused, effect=lambda: self._handle_error(file, wrote=False))]
        if self.read_fault == file.path:
            return [Branch("EIO", effect=self._clear_read_fault)]
        data = self.content(file)[offset : offset + wanted]
        branches = accept(data, lambda: self.may_touch(file))
        if handle.direct and not self._aligned(length):
            # Measured is an unaligned length before the end of file (EINVAL) and an aligned one that crosses
            # it (clipped); not one that is unaligned and crosses it.
            branches += refuse("EINVAL")
        return branches

    def _clear_read_fault(self) -> None:
        self.read_fault = None

    def may_touch(self, node: ModelNode) -> None:
        """Somebody reads *node*."""
        node.atime.since = self.now  # relatime: a read may move it

    # Truncating and attributes.

    def truncate(self, path: str, size: int, *, uid: int = 0, by_handle: bool = False) -> list[Branch]:
        """Set the size of *path*, as user *uid*; *by_handle*: by one that is open for writing.

        The latter is not refused where an error has made the file system read-only since, and moves times (measured).
        """
        node = self.nodes[path]
        if not isinstance(node, ModelFile):
            return refuse("EISDIR", *(["EROFS"] if self.read_only else []))
        if by_handle and node.immutable:
            return refuse("EPERM")
        if not by_handle and (refused := self._refuses_change(node)):
            return refuse(refused)
        if size > self.largest_file():
            return refuse("EFBIG")
        if node.conventional or size not in (0, node.capacity):
            return refuse("EPERM")

        def effect() -> None:
            if uid:
                self._drop_set_id(node)
            (self._finish if size else self._reset)(node)
            if by_handle:
                self._modified(node)

        refuses = self.device.refuses_finish if size else self.device.refuses_reset
        if node.size == size:
            # Nothing to do; whether the device is asked all the same is open.
            refused = refuses(node.zone)
            return accept(None, effect) + (refuse(refused) if refused else [])
        if refused := refuses(node.zone):
            return refuse(refused)
        return accept(None, effect)

    def _modified(self, node: ModelNode) -> None:
        """ftruncate(2) and O_TRUNC move times, even where the size stays."""
        node.mtime, node.ctime = Moment(since=self.now), Moment(since=self.now)

    def _refuses_change(self, node: ModelNode) -> str | None:
        if self.read_only:
            return "EROFS"
        return "EPERM" if isinstance(node, ModelFile) and node.immutable else None

    def _reset(self, file: ModelFile) -> None:
        if file.size == 0:
            self._ask_device_perhaps(file)
            return
        self.device.reset(file.zone)
        self._set_size(file, 0)
        if file.held_open:
            self.device.open(file.zone)

    def _finish(self, file: ModelFile) -> None:
        if file.size == file.capacity:
            self._ask_device_perhaps(file)
            return
        self.device.finish(file.zone)
        self._set_size(file, file.capacity)

    def _ask_device_perhaps(self, file: ModelFile) -> None:
        zone = self.zone_of(file)
        if zone.condition not in BAD and zone.data_size() != file.size:
            self._perhaps_settled = file

    def _drop_set_id(self, node: ModelNode) -> None:
        node.mode &= ~stat.S_ISUID
        if node.mode & stat.S_IXGRP:
            node.mode &= ~stat.S_ISGID
        else:
            node.losable_mode = stat.S_ISGID
        node.ctime.since = self.now

    def chmod(self, path: str, permissions: int) -> list[Branch]:
        """Change the mode."""
        node = self.nodes[path]
        if refused := self._refuses_change(node):
            return refuse(refused)
        if node.is_directory and permissions & 0o222:
            return refuse("EPERM")

        def effect() -> None:
            node.mode = stat.S_IFMT(node.mode) | permissions
            node.ctime = Moment(since=self.now)

        return accept(None, effect)

    def chown(self, path: str, uid: int, gid: int) -> list[Branch]:
        """Change owner and group."""
        node = self.nodes[path]
        if refused := self._refuses_change(node):
            return refuse(refused)

        def effect() -> None:
            node.uid, node.gid = uid, gid
            node.losable_mode = 0 if node.is_directory else stat.S_ISUID | stat.S_ISGID
            node.ctime = Moment(since=self.now)

        return accept(None, effect)

    def utimes(self, path: str, atime: int, mtime: int) -> list[Branch]:
        """Set access and modification time (nanoseconds, may be negative)."""
        node = self.nodes[path]
        if refused := self._refuses_change(node):
            return refuse(refused)

        def effect() -> None:
            node.atime, node.mtime, node.ctime = Moment(atime), Moment(mtime), Moment(since=self.now)

        return accept(None, effect)

    def fsync(self, number: int) -> list[Branch]:
        """Flush: works, unless the zone is (taken for) broken."""
        return refuse("EPERM") if self.file(self.handles[number].path).immutable else accept()

    # The namespace cannot change.

    def create(self, parent: str, name: bytes) -> list[Branch]:
        """creat, mkdir, symlink...: a new name is refused as if the directory did not know it."""
        found = self.lookup(parent, name)
        return refuse("EEXIST") if found[0].errno is None else found

    def remove(self, parent: str, name: bytes) -> list[Branch]:
        """unlink or rmdir by root."""
        found = self.lookup(parent, name)
        if found[0].errno is not None:
            return found + (refuse("EROFS") if self.read_only else [])
        return refuse("EROFS" if self.read_only else "EPERM")

    def rename(self, parent: str, name: bytes, new_parent: str, new_name: bytes) -> list[Branch]:
        """rename to another name, existing or not."""
        found = self.lookup(parent, name)
        if found[0].errno is not None:
            return found
        target = self.lookup(new_parent, new_name)
        if target[0].errno is not None:
            return target
        path = f"{parent}/{name.decode()}".lstrip("/")
        if self.nodes[path].is_directory:  # "rename dir: ENOENT" was measured to a new name only
            return refuse("EPERM", "ENOENT")
        return refuse("EPERM", *(["EROFS"] if self.read_only else []))

    # Mounting.

    def nr_write_handles(self) -> int:
        """Handles open for writing, conventional files' too."""
        return sum(handle.writes for handle in self.handles.values())

    def remount(self, options: Options) -> list[Branch]:
        """mount -o remount with all options given."""

        def effect() -> None:
            self.options = options
            self.read_only = options.read_only

        if options.read_only and self.nr_write_handles():
            # An error made it read-only already: the kernel has nothing left to do then.
            return [*refuse("EBUSY"), *(accept(None, effect) if self.read_only else [])]
        return accept(None, effect)

    def mount_again(self, options: Options) -> list[Branch]:
        """Close what is open, unmount, mount with *options*."""

        def effect() -> None:
            for number in list(self.handles):
                self.close(number)[0].effect()
            self.options = options
            self._mount()

        return accept(None, effect)

    # Things that happen to the device.

    def force(self, number: int, condition: ZoneCondition | None) -> None:
        """Zone *number* becomes read-only or offline; or well again, with what it held (None)."""
        zone = self.device.zones[number]
        assert condition is None or condition in BAD
        if condition is not None:
            zone.condition = condition
        elif zone.wpoffset in (0, zone.capacity):
            zone.condition = FULL if zone.wpoffset else ZoneCondition.EMPTY
        else:
            zone.condition = ZoneCondition.CLOSED

    def _take_offline(self, file: ModelFile) -> None:
        file.offline = True
        file.mode &= ~0o777

    def _handle_error(self, file: ModelFile, *, wrote: bool) -> None:
        """Look at the zone again after a failure, make the view true again, and do what errors= says."""
        zone = self.zone_of(file)
        policy = self.options.errors
        size = file.size if zone.condition in BAD else zone.data_size()
        if not wrote and zone.condition not in BAD and not file.immutable and size == file.size:
            return
        if zone.condition is OFFLINE or file.offline or policy == "zone-offline":
            self._take_offline(file)
            size = 0
        elif zone.condition is READONLY or file.read_only or policy == "zone-ro":
            file.read_only = True
            file.mode &= ~0o222
            size = file.size
        elif policy == "remount-ro":
            size = min(size, file.size)  # what was written behind our back is not shown
        if file.immutable:
            file.held_open = False
        if policy == "remount-ro":
            self.read_only = True
        self._set_size(file, size)

    # What only an observation tells.

    def adopt(self, seen: Observation) -> None:
        """Take over what the contract leaves open: a torn write, a zone closed to make room, times."""
        if self._torn is not None:
            self._adopt_torn(*self._torn, seen.report)
            self._torn = None
        if self._perhaps_settled is not None:
            self._adopt_settled(self._perhaps_settled, seen.report)
            self._perhaps_settled = None
        for file in self.files:
            self._adopt_left_open(file, seen.report[file.zone])
        self.device.adopt(seen.report)
        for path, node in self.nodes.items():
            self._adopt_attributes(node, seen.stats[path])

    def _adopt_torn(self, file: ModelFile, offset: int, data: bytes, report: Sequence[ReportedZone]) -> None:
        zone = self.zone_of(file)
        reported = report[file.zone]
        wpoffset = zone.capacity if reported.condition is FULL else reported.wpoffset
        assert wpoffset is not None, f"zone {zone.number} is {reported.condition.name} after a failed write"
        assert offset <= wpoffset <= offset + len(data), f"write pointer at {wpoffset} after a write at {offset}"
        assert wpoffset % self.device.block_size == 0
        if wpoffset > offset:
            self.device.write(file.zone, offset, data[: wpoffset - offset])
        elif zone.condition in (ZoneCondition.EMPTY, ZoneCondition.CLOSED) and reported.condition is IMP_OPEN:
            self.device.write(file.zone, offset, b"")  # opened by the write that then failed
        self._handle_error(file, wrote=True)

    def _adopt_settled(self, file: ModelFile, report: Sequence[ReportedZone]) -> None:
        """The file system may have taken its own view of the size for the device's, and made it so."""
        zone = self.zone_of(file)
        reported = report[file.zone]
        wpoffset = zone.capacity if reported.condition is FULL else reported.wpoffset
        if wpoffset != file.size or zone.data_size() == file.size:
            return
        if zone.lazily_moved:
            return  # the device has not looked yet: that it says so tells nothing
        if file.size == 0:
            self.device.reset(file.zone)
            if file.held_open:
                self.device.open(file.zone)
        else:
            self.device.finish(file.zone)

    def _adopt_left_open(self, file: ModelFile, reported: ReportedZone) -> None:
        """explicit-open and error handling that took the file away: whether the zone is still closed is open."""
        zone = self.zone_of(file)
        if zone.condition is EXP_OPEN and not file.held_open and reported.condition is not EXP_OPEN:
            self.device.close(file.zone)

    def _adopt_attributes(self, node: ModelNode, seen: Stat) -> None:
        if (seen.mode ^ node.mode) & ~node.losable_mode == 0:
            node.mode = seen.mode
        node.losable_mode = 0
        for name in ("atime", "mtime", "ctime"):
            moment: Moment = getattr(node, name)
            time: int = getattr(seen, name)
            if moment.admits(time):
                setattr(node, name, Moment(exact=time))
