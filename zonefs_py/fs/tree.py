"""The tree of a mounted zonefs: the root, the groups ``cnv`` and ``seq``, and their files; look-up and listing."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from zonefs_py.errors import NameTooLong, NoSuchFile
from zonefs_py.fs.file import Inode, ZoneFile
from zonefs_py.fs.layout import (
    CONVENTIONAL_GROUP,
    GROUPS,
    MAX_NAME_LENGTH,
    SEQUENTIAL_GROUP,
    FileExtent,
    build_layout,
    parse_file_name,
)
from zonefs_py.fs.superblock import Superblock
from zonefs_py.zone import Zone

log = logging.getLogger(__name__)

S_IFDIR = 0o040000
DIRECTORY_MODE = 0o555
SETTABLE_BITS = 0o7777

NOT_SEEN = -1
"""The times of a file that nobody has looked at yet; see `Tree.instantiate`."""


class Directory(Inode):
    """The root, ``cnv`` or ``seq``. ``children`` of the root are directories by name, of a group its files."""

    __slots__ = ("children", "files", "parent")

    def __init__(self, ino: int, parent: Directory | None, time_ns: int) -> None:
        super().__init__(ino, S_IFDIR | DIRECTORY_MODE, 0, 0, time_ns)
        self.parent = parent or self
        self.children: dict[bytes, Directory] = {}
        self.files: Sequence[ZoneFile] = ()

    @property
    def nlink(self) -> int:
        """Two, and one more for each directory in it."""
        return 2 + len(self.children)

    @property
    def size(self) -> int:
        """What kernel zonefs shows as the size: the number of files; of the root, two more than of its directories."""
        return len(self.children) + 2 if self.parent is self else len(self.files)

    def listing(self) -> Iterator[tuple[bytes, Inode]]:
        """The entries after ``.`` and ``..``, in order."""
        if self.children:
            return iter(self.children.items())
        return ((b"%d" % index, file) for index, file in enumerate(self.files))


class Tree:
    """All inodes of a mount. Which there are never changes."""

    def __init__(self, zones: Iterable[Zone], superblock: Superblock, block_size: int, time_ns: int) -> None:
        zones = list(zones)
        layout = build_layout(zones, aggregate_conventional=superblock.aggregate_conventional)
        self.root = Directory(len(zones), None, time_ns)
        self._inodes: dict[int, Inode] = {self.root.ino: self.root}
        self.capacity = 0
        """Bytes of all files together when they are full."""
        self.max_file_size = 0
        self.nr_files = 0
        self.name_max = MAX_NAME_LENGTH
        for more, (name, extents) in enumerate(zip(GROUPS, layout, strict=True), start=1):
            if extents:
                self._add_group(name, self.root.ino + more, extents, superblock, block_size)

    def _add_group(
        self, name: str, ino: int, extents: list[FileExtent], superblock: Superblock, block_size: int
    ) -> None:
        group = Directory(ino, self.root, self.root.ctime_ns)
        mode = superblock.file_permissions & SETTABLE_BITS
        uid, gid, sequential = superblock.file_uid, superblock.file_gid, name == SEQUENTIAL_GROUP
        files = [
            ZoneFile(
                extent,
                index,
                block_size,
                sequential=sequential,
                mode=mode,
                uid=uid,
                gid=gid,
                time_ns=NOT_SEEN,
            )
            for index, extent in enumerate(extents)
        ]
        group.files = files
        self.root.children[name.encode()] = group
        self._inodes[ino] = group
        self._inodes.update((file.ino, file) for file in files)
        self.capacity += sum(file.capacity for file in files)
        self.max_file_size = max(self.max_file_size, max(file.capacity for file in files))
        self.nr_files += len(files)
        log.info('zone group "%s" has %d file%s', name, len(files), "" if len(files) == 1 else "s")

    def inode(self, number: int) -> Inode:
        """Return the inode of that number. Raises NoSuchFile."""
        try:
            return self._inodes[number]
        except KeyError:
            raise NoSuchFile(f"no inode {number}") from None

    def way_to(self, file: ZoneFile) -> tuple[Directory, Directory]:
        """Return the directories on the way to *file*: the root and its group."""
        group = self._group(SEQUENTIAL_GROUP if file.sequential else CONVENTIONAL_GROUP)
        assert group is not None
        return self.root, group

    def files(self) -> Iterator[ZoneFile]:
        """All files, in the order of their zones."""
        groups = (self._group(name) for name in GROUPS)
        return itertools.chain.from_iterable(group.files for group in groups if group)

    def _group(self, name: str) -> Directory | None:
        return self.root.children.get(name.encode())

    def lookup(self, directory: Directory, name: bytes) -> Inode:
        """Return the inode of *name* in *directory*. Raises NoSuchFile, NameTooLong."""
        if len(name) > MAX_NAME_LENGTH:
            raise NameTooLong(f"{name!r}: a zonefs name has at most {MAX_NAME_LENGTH} bytes")
        found: Inode | None = None
        if name == b".":
            found = directory
        elif name == b"..":
            found = directory.parent
        elif directory is directory.parent:
            # The root: of this tree, or of the one before a power cut.
            found = directory.children.get(name)
        else:
            index = parse_file_name(name)
            if index is not None and index < len(directory.files):
                found = directory.files[index]
        if found is None:
            raise NoSuchFile(f"no {name!r}")
        return found

    def instantiate(self, inode: Inode) -> None:
        """Give a file that nobody has looked at yet its times: those of its directory's last change."""
        if inode.ctime_ns == NOT_SEEN and isinstance(inode, ZoneFile):
            inode.atime_ns = inode.mtime_ns = inode.ctime_ns = self.way_to(inode)[1].ctime_ns

    def entries(self, directory: Directory, offset: int, limit: int | None = None) -> list[tuple[bytes, Inode]]:
        """Return entries of *directory* from index *offset* on (0 is ``.``, 1 is ``..``), at most *limit*."""
        if offset >= 2 and directory.files:
            stop = None if limit is None else offset - 2 + limit
            chosen = directory.files[offset - 2 : stop]
            return [(b"%d" % index, file) for index, file in enumerate(chosen, start=offset - 2)]
        dots: list[tuple[bytes, Inode]] = [(b".", directory), (b"..", directory.parent)]
        stop = None if limit is None else offset + limit
        return list(islice(itertools.chain(dots, directory.listing()), offset, stop))

    def zone_names(self, numbers: Iterable[int]) -> Iterator[str | None]:
        """Yield the path of the file of each of *numbers*, zones in ascending order; None for a zone without one."""
        last: ZoneFile | None = None
        for number in numbers:
            file = self._inodes.get(number)
            if isinstance(file, ZoneFile):
                last = file
            elif last is None or number >= last.number + last.nr_zones:
                yield None
                continue
            yield last.name
