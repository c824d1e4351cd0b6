"""A file of a `Filesystem` as something that background copies can go to."""

from __future__ import annotations

from collections.abc import Hashable

from zonefs_py.fs.filesystem import Filesystem


class FileTarget:
    """An open file of a file system that is not mounted; sources are handles of the same file system."""

    def __init__(self, filesystem: Filesystem, path: str, handle: int) -> None:
        """*handle* is the file *path* opened for writing, without O_APPEND. Raises NoSuchFile and its like."""
        self._fs = filesystem
        self._handle = handle
        self._inode = filesystem.resolve(path)
        self._path = path

    @property
    def name(self) -> str:
        """The path below the mount point."""
        return self._path

    @property
    def key(self) -> Hashable:
        """The file system and the inode."""
        return id(self._fs), self._inode

    @property
    def block_size(self) -> int:
        """The device's."""
        return self._fs.info.block_size

    def end(self) -> int:
        """Return the size of the file: of a sequential one, the write pointer."""
        return self._fs.getattr(self._inode).size

    def copy(self, source: int, source_offset: int, offset: int, length: int) -> int:
        """Copy as `Filesystem.copy_range` does."""
        return self._fs.copy_range(source, source_offset, self._handle, offset, length)
