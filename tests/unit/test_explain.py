"""Why something was refused: every error has a rule, its source and an advice that fits; the list is bounded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

import zonefs_py.errors
from zonefs_py.errors import (
    AppendToConventional,
    BeyondCapacity,
    BufferedSequentialWrite,
    DeviceError,
    InvalidRequest,
    NotAligned,
    NotAtWritePointer,
    NotPermitted,
    OpenZonesExhausted,
    ReadOnlyFilesystem,
    ZonefsError,
)
from zonefs_py.fs.explain import FileState, explain
from zonefs_py.fs.refusals import MOST_REFUSALS, RefusalLog

SEQUENTIAL = FileState("seq/3", 7, True, 8192, 65536, 4096, False, False)
CONVENTIONAL = FileState("cnv/0", 1, False, 65536, 65536, 4096, False, False)


def all_errors() -> list[type[ZonefsError]]:
    kinds = vars(zonefs_py.errors).values()
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, ZonefsError)]


@pytest.mark.parametrize("kind", all_errors())
@pytest.mark.parametrize("file", [None, SEQUENTIAL, CONVENTIONAL, SEQUENTIAL._replace(offline=True)])
@pytest.mark.parametrize("call", ["read", "write", "setattr", "copy_file_range", "unlink"])
def test_every_error_is_explained_in_one_line_each(kind: type[ZonefsError], file: FileState | None, call: str) -> None:
    for text in explain(call, kind("what it was"), file):
        assert len(text) > 5
        assert text.isprintable()


@pytest.mark.parametrize(
    ("call", "error", "file", "rule", "advice"),
    [
        ("write", NotAtWritePointer, SEQUENTIAL, "written at its end", "write at offset 8192, or"),
        ("write", NotAtWritePointer, None, "written at its end", "write at its end, or"),
        ("write", NotAligned, SEQUENTIAL, "whole blocks", "multiples of 4096"),
        ("write", BufferedSequentialWrite, SEQUENTIAL, "direct writes only", "O_DIRECT"),
        ("write", AppendToConventional, CONVENTIONAL, "fixed size", "without O_APPEND"),
        ("write", BeyondCapacity, SEQUENTIAL, "the capacity of 65536 bytes", "another file"),
        ("write", NotPermitted, SEQUENTIAL._replace(offline=True), "zone is offline", "zone online"),
        ("write", NotPermitted, SEQUENTIAL._replace(readonly=True), "zone is read-only", "zone online"),
        ("setattr", NotPermitted, SEQUENTIAL, "to 0 resets", "truncate to 0 or to 65536"),
        ("setattr", NotPermitted, CONVENTIONAL, "fixed size", "without O_TRUNC"),
        ("setattr", NotPermitted, None, "Directories", "write bits"),
        ("unlink", NotPermitted, None, "names cannot be", "truncate"),
        ("write", ReadOnlyFilesystem, SEQUENTIAL, "errors=remount-ro", "remount,rw"),
        ("write", OpenZonesExhausted, SEQUENTIAL, "limit of open zones", "zone close"),
        ("write", DeviceError, SEQUENTIAL, "device failed", "list"),
        ("copy_file_range", InvalidRequest, SEQUENTIAL, "makes no sense", "message"),
    ],
)
def test_rules_and_advice(call: str, error: type[ZonefsError], file: FileState | None, rule: str, advice: str) -> None:
    explanation = explain(call, error("x"), file)
    assert rule in explanation.rule
    assert advice in explanation.advice
    assert explanation.source


def test_the_log_keeps_the_last_and_counts_all(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog(lambda: 5)
    caplog.set_level("INFO")
    for number in range(MOST_REFUSALS + 10):
        log.add("write", NotAtWritePointer(f"no. {number}"), SEQUENTIAL, 4096, 512, 77, "dd")
    assert not caplog.records
    kept = log.last()
    assert [one.number for one in kept] == list(range(11, MOST_REFUSALS + 11))
    assert [one.number for one in log.last(2)] == [MOST_REFUSALS + 9, MOST_REFUSALS + 10]
    assert log.last(0) == []
    assert log.by_errno == {"EINVAL": MOST_REFUSALS + 10}
    last = kept[-1]
    assert (last.time_ns, last.call, last.errno, last.file, last.zone) == (5, "write", "EINVAL", "seq/3", 7)
    assert (last.offset, last.length, last.size, last.capacity) == (4096, 512, 8192, 65536)
    assert (last.pid, last.process) == (77, "dd")


@pytest.fixture
def nothing_else() -> Iterator[None]:
    """Have nothing logged but errors, and what somebody asks for."""
    loggers = logging.getLogger(), logging.getLogger(RefusalLog.__module__)
    before = [logger.level for logger in loggers]
    loggers[0].setLevel(logging.ERROR)
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.mark.usefixtures("nothing_else")
def test_they_are_logged_if_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog(lambda: 0)
    log.add("write", NotAtWritePointer("write at 0"), SEQUENTIAL, 0, 512, 77, "dd")
    assert not caplog.records
    log.log_each()
    log.add("write", NotAtWritePointer("write at 4096"), SEQUENTIAL, 4096, 512, 77, "dd")
    log.add("unlink", NotPermitted("no"), None, None, None, None, None)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("refused: write of seq/3 (zone 7) by dd (77): EINVAL: write at 4096. A sequential file is")
    assert "Instead: write at offset 8192" in first
    assert second.startswith("refused: unlink: EPERM: no. Every zone is one file")


def test_nothing_is_lost_with_many_threads() -> None:
    log = RefusalLog(lambda: 0)

    def add() -> None:
        for _ in range(200):
            log.add("read", DeviceError("x"), None, None, None, None, None)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.by_errno == {"EIO": 800}
    assert sorted(one.number for one in log.last()) == list(range(801 - MOST_REFUSALS, 801))
