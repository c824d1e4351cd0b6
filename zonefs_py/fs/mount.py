"""What all files of a mounted file system share: options, the read-only state, counters and space accounting."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from zonefs_py.config import MountOptions
from zonefs_py.errors import FilesystemBusy, TooManyWriteOpenFiles
from zonefs_py.fs.file import ZoneFile

log = logging.getLogger(__name__)


class SequentialFileCounters(NamedTuple):
    """What kernel zonefs shows in /sys/fs/zonefs; a maximum of 0 is no limit."""

    max_wro_seq_files: int
    nr_wro_seq_files: int
    max_active_seq_files: int
    nr_active_seq_files: int


class Mount:
    """The shared state of one mounted file system."""

    def __init__(self, options: MountOptions, max_open_zones: int | None, max_active_zones: int | None) -> None:
        self._lock = threading.Lock()
        """Guards every attribute below. The last lock taken: nothing is called while it is held."""
        self._max_wro = max_open_zones or 0
        self._max_active = max_active_zones or 0
        self._nr_wro = 0
        self._nr_active = 0
        self._nr_writers = 0
        self._used = 0
        self.options = self._effective(options)
        self.read_only = options.read_only
        self.power_lost = False
        """Whether the device has lost power, so that its errors say nothing about zones."""

    def _effective(self, options: MountOptions) -> MountOptions:
        if options.explicit_open and not self._max_wro and not self._max_active:
            log.info("the device has no open and active zone limits: ignoring explicit-open")
            return replace(options, explicit_open=False)
        return options

    @property
    def counters(self) -> SequentialFileCounters:
        """The counters at this moment."""
        with self._lock:
            return SequentialFileCounters(self._max_wro, self._nr_wro, self._max_active, self._nr_active)

    @property
    def used(self) -> int:
        """Bytes that are data, over all files."""
        with self._lock:
            return self._used

    def remount(self, options: MountOptions) -> None:
        """Take new options. Raises FilesystemBusy if it would become read-only while a file is open for writing."""
        with self._lock:
            if options.read_only and not self.read_only and self._nr_writers:
                raise FilesystemBusy(f"{self._nr_writers} handles are open for writing")
            # Without limits too: only a mount looks at those, as the kernel's does.
            self.options = options
            self.read_only = options.read_only

    def become_read_only(self, why: str) -> None:
        """Refuse every change from now on. Without power that is so anyway, and no fault of a zone's."""
        if self.power_lost:
            return
        with self._lock:
            before, self.read_only = self.read_only, True
        if not before:
            log.warning("%s: remounting file system read-only", why)

    def add_writer(self) -> None:
        """Count a handle that can write."""
        with self._lock:
            self._nr_writers += 1

    def remove_writer(self) -> None:
        """Stop counting a handle that could write."""
        with self._lock:
            self._nr_writers -= 1

    def add_write_open_file(self, name: str, *, limited: bool) -> None:
        """Count a sequential file that was not open for writing. Raises TooManyWriteOpenFiles if *limited*."""
        with self._lock:
            if limited and self._max_wro and self._nr_wro >= self._max_wro:
                raise TooManyWriteOpenFiles(f"{name}: {self._nr_wro} sequential files are open for writing")
            self._nr_wro += 1

    def remove_write_open_file(self) -> None:
        """Stop counting a sequential file that is no longer open for writing."""
        with self._lock:
            self._nr_wro -= 1

    def account_active(self, file: ZoneFile) -> None:
        """Bring the count of active files up to date with *file*, whose lock is held."""
        active = file.should_be_active()
        if active != file.active:
            file.active = active
            with self._lock:
                self._nr_active += 1 if active else -1

    def set_size(self, file: ZoneFile, size: int) -> None:
        """Give *file*, whose lock is held, a new *size* in bytes, and account for it."""
        with self._lock:
            self._used += size - file.size
        file.size = size
        if file.sequential and size == file.capacity:
            # The device has closed a zone that became full (kernel: zonefs_i_size_write).
            file.explicitly_open = False
        self.account_active(file)

    def advance(self, file: ZoneFile, length: int) -> None:
        """Take note that *length* bytes were written at the write pointer of *file*, as `set_size` does.

        It is sequential and not `immutable`, and its lock is held.
        """
        with self._lock:
            self._used += length
        size = file.size + length
        file.size = size
        if size == file.capacity:
            file.explicitly_open = False
            self.account_active(file)
        elif not file.active:
            self.account_active(file)

    def add_files(self, files: Iterable[ZoneFile]) -> None:
        """Account for files that were there when the file system was mounted."""
        used = nr_active = 0
        for file in files:
            if file.size:
                used += file.size
                if file.should_be_active():
                    file.active = True
                    nr_active += 1
        self._used += used
        self._nr_active += nr_active
