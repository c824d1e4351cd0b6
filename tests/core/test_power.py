"""Power cuts of a file system in use: what is kept, what is lost, and that nothing of before is done afterwards."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import Effect, FaultRule, Operation
from zonefs_py.device.linear import LinearDevice
from zonefs_py.device.linear_table import Slice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.device.power_cut import Keep, KeepAll, KeepChosen, KeepNone, KeepSeed, PowerCut, ZoneLoss
from zonefs_py.device.write_cache import WriteCacheDevice
from zonefs_py.errors import DeviceError, PowerLost, UserError, ZonefsError
from zonefs_py.fs.attributes import AttributeChanges
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.fs.power import ViewChange
from zonefs_py.zone import Geometry, ZoneOp

BLOCK = 4096
ZONE = 16 * BLOCK
NR_ZONES = 8
GEOMETRY = Geometry(ZONE, ZONE, NR_ZONES, 2, BLOCK, ZONE)
READ_WRITE = os.O_RDWR | os.O_DIRECT
SECONDS = 60


def blocks(letters: str) -> bytes:
    """A block of each letter."""
    return b"".join(letter.encode() * BLOCK for letter in letters)


DEFAULTS = MountOptions()


def make(*rules: FaultRule, limits: tuple[int, int] = (3, 4), options: MountOptions = DEFAULTS) -> Filesystem:
    """A file system over faults over a write cache. Zone 1 is cnv/0, zone 2 is seq/0."""
    memory = MemoryDevice(GEOMETRY, *limits)
    format_device(memory, FormatOptions(), uuid=bytes(16))
    device = FaultDevice(WriteCacheDevice(memory), waits=True)
    filesystem = Filesystem(device, options)
    device.add_rules(rules)
    return filesystem


@pytest.fixture
def fs() -> Iterator[Filesystem]:
    """One without rules, with explicit-open."""
    with make(options=MountOptions(explicit_open=True)) as filesystem:
        yield filesystem


def written(fs: Filesystem, path: str) -> str:
    """The first byte of each block of a file, as text."""
    handle = fs.open(path, os.O_RDONLY)
    try:
        size = fs.getattr(fs.resolve(path)).size
        return fs.read(handle, 0, size)[::BLOCK].decode()
    finally:
        fs.release(handle)


def put(fs: Filesystem, path: str, letters: str, *, synced: bool = False) -> None:
    """Append blocks."""
    handle = fs.open(path, READ_WRITE | os.O_APPEND)
    fs.write(handle, 0, blocks(letters))
    if synced:
        fs.fsync(handle)
    fs.release(handle)


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (KeepNone(), "ab"),
        (KeepAll(), "abcde"),
        (KeepChosen({2: 2 * BLOCK}), "abcd"),
    ],
)
def test_what_was_synced_is_there_and_of_the_rest_what_is_kept(fs: Filesystem, keep: Keep, left: str) -> None:
    put(fs, "seq/0", "ab", synced=True)
    put(fs, "seq/0", "cde")
    put(fs, "seq/1", "x", synced=True)
    cut = fs.power_cut(keep)
    assert cut == PowerCut((ZoneLoss(2, 3 * BLOCK, (len(left) - 2) * BLOCK),))
    assert (written(fs, "seq/0"), written(fs, "seq/1")) == (left, "x")
    assert fs.used == ZONE + (len(left) + 1) * BLOCK
    put(fs, "seq/0", "f")
    assert written(fs, "seq/0") == left + "f"


def test_blocks_of_conventional_files(fs: Filesystem) -> None:
    handle = fs.open("cnv/0", READ_WRITE)
    fs.write(handle, 0, blocks("abcd"))
    fs.fsync(handle)
    fs.write(handle, BLOCK, blocks("xyz"))
    cut = fs.power_cut(KeepChosen({1: frozenset({2 * BLOCK})}))
    assert cut.zones == (ZoneLoss(1, 3 * BLOCK, BLOCK),)
    assert written(fs, "cnv/0")[:5] == "abyd\0"


def test_every_call_on_a_file_of_before_is_refused(fs: Filesystem) -> None:
    put(fs, "seq/0", "ab", synced=True)
    writer = fs.open("seq/0", READ_WRITE)
    reader = fs.open("seq/0", os.O_RDONLY)
    other = fs.open("seq/1", READ_WRITE)
    fs.power_cut(KeepNone())
    new = fs.open("seq/1", READ_WRITE)
    calls: list[Callable[[], object]] = [
        lambda: fs.read(reader, 0, BLOCK),
        lambda: fs.read_now(reader, 0, memoryview(bytearray(BLOCK))),
        lambda: fs.write(writer, 2 * BLOCK, blocks("c")),
        lambda: fs.fsync(writer),
        lambda: fs.setattr("seq/0", AttributeChanges(size=0), handle=writer),
        lambda: fs.fsync(reader),
        lambda: fs.copy_range(reader, 0, new, 0, BLOCK),
        lambda: fs.copy_range(new, 0, other, 0, BLOCK),
        lambda: fs.copy_ranges(other, None, [(fs.resolve("seq/0"), 0, BLOCK)]),
    ]
    before = fs.counters, fs.used, fs.device.report_zones()
    for call in calls:
        with pytest.raises(PowerLost):
            call()
    assert fs.backing_descriptor(reader) is None
    for handle in (writer, reader, other):
        fs.release(handle)
    assert (fs.counters, fs.used, fs.device.report_zones()) == before
    fs.write(new, 0, blocks("z"))
    assert fs.nr_handles == 1


def test_explicitly_open_zones_are_gone_and_the_counts_with_them(fs: Filesystem) -> None:
    handles = [fs.open(f"seq/{number}", READ_WRITE) for number in range(3)]
    fs.write(handles[0], 0, blocks("a"))
    fs.fsync(handles[0])
    fs.manage_zone(ZoneOp.CLOSE, 4)
    assert fs.counters[1::2] == (3, 2)
    fs.power_cut(KeepAll())
    assert fs.counters[1::2] == (0, 1)
    # Nothing that was open before takes up a zone.
    again = [fs.open(f"seq/{number}", READ_WRITE) for number in (3, 4, 5)]
    for handle in handles:
        fs.release(handle)
    assert fs.counters[1::2] == (3, 4)
    for handle in again:
        fs.release(handle)
    assert fs.counters[1::2] == (0, 1)


def test_it_is_as_after_a_mount(fs: Filesystem) -> None:
    inode = fs.resolve("seq/0")
    put(fs, "seq/0", "a", synced=True)
    fs.setattr(inode, AttributeChanges(mode=0o600, uid=7, gid=8))
    activity = fs.activity
    fs.power_cut(KeepNone())
    attributes = fs.getattr(inode)
    assert (attributes.mode & 0o7777, attributes.uid, attributes.gid) == (0o640, 0, 0)
    # But for what is counted since the mount, and the options.
    assert fs.activity == activity
    assert fs.options.explicit_open


def test_a_file_system_that_an_error_made_read_only_is_not_so_afterwards() -> None:
    with make(FaultRule(Operation.WRITE, Effect.FAIL)) as fs:
        assert fs.options.errors is ErrorsPolicy.REMOUNT_RO
        with pytest.raises(DeviceError):
            put(fs, "seq/0", "a")
        assert fs.read_only
        fs.power_cut(KeepNone())
        assert not fs.read_only
        put(fs, "seq/0", "a")


def test_dead_until_the_power_is_on(fs: Filesystem) -> None:
    put(fs, "seq/0", "ab", synced=True)
    put(fs, "seq/0", "c")
    handle = fs.open("seq/0", os.O_RDONLY)
    cut = fs.power_cut(KeepNone(), dead=True)
    assert cut.unflushed == BLOCK
    assert not fs.powered
    calls: list[Callable[[], object]] = [
        lambda: fs.open("seq/0", os.O_RDONLY),
        lambda: fs.read(handle, 0, BLOCK),
        lambda: fs.getattr(2),
        lambda: fs.lookup(fs.root, b"seq"),
        lambda: fs.readdir(fs.root),
        lambda: fs.truncate("seq/0", 0),
        fs.statfs,
        lambda: fs.remount(fs.options),
        fs.sync,
        lambda: fs.manage_zone(ZoneOp.RESET, 2),
    ]
    for call in calls:
        with pytest.raises(PowerLost):
            call()
    with pytest.raises(DeviceError, match="no power"):
        list(fs.report())
    assert fs.power_cut(KeepAll(), dead=True) == PowerCut(())
    fs.power_on()
    assert fs.powered
    assert written(fs, "seq/0") == "ab"
    with pytest.raises(PowerLost):
        fs.read(handle, 0, BLOCK)
    fs.power_on()
    assert fs.nr_handles == 1


def test_a_dead_one_can_be_closed() -> None:
    fs = make()
    put(fs, "seq/0", "a")
    fs.open("seq/1", READ_WRITE)
    fs.power_cut(KeepNone(), dead=True)
    fs.close()


def test_a_cut_without_dead_brings_a_dead_one_back(fs: Filesystem) -> None:
    fs.power_cut(KeepNone(), dead=True)
    assert fs.power_cut(KeepNone()) == PowerCut(())
    assert written(fs, "seq/0") == ""


def test_a_cut_when_nothing_was_done(fs: Filesystem) -> None:
    for keep in (KeepNone(), KeepAll(), KeepSeed(3)):
        assert fs.power_cut(keep) == PowerCut(())
    assert [written(fs, f"seq/{number}") for number in range(6)] == [""] * 6


def test_nothing_happens_without_a_write_cache() -> None:
    memory = MemoryDevice(GEOMETRY)
    format_device(memory, FormatOptions(), uuid=bytes(16))
    with Filesystem(FaultDevice.over(memory)) as fs:
        handle = fs.open("seq/0", READ_WRITE)
        for call in (lambda: fs.power_cut(KeepNone(), dead=True), fs.power_on):
            with pytest.raises(UserError, match="use write-cache:memory"):
                call()
        assert fs.powered
        fs.write(handle, 0, blocks("a"))


def test_nothing_happens_if_there_is_not_what_is_to_be_kept(fs: Filesystem) -> None:
    handle = fs.open("seq/0", READ_WRITE)
    fs.write(handle, 0, blocks("ab"))
    with pytest.raises(UserError, match="zone 3 has nothing unflushed"):
        fs.power_cut(KeepChosen({3: BLOCK}))
    assert fs.powered
    fs.write(handle, 2 * BLOCK, blocks("c"))
    assert written(fs, "seq/0") == "abc"


@pytest.mark.parametrize("operation", [Operation.READ, Operation.REPORT])
def test_a_device_that_cannot_be_mounted_again_leaves_it_dead(operation: Operation) -> None:
    with make() as fs:
        put(fs, "seq/0", "a", synced=True)
        assert isinstance(fs.device, FaultDevice)
        number = fs.device.add_rule(FaultRule(operation, Effect.FAIL, count=None))
        with pytest.raises(PowerLost, match=r"cannot be mounted again: .*by rule 1"):
            fs.power_cut(KeepNone())
        assert not fs.powered
        with pytest.raises(PowerLost, match="cannot be mounted again"):
            fs.power_on()
        fs.device.remove_rule(number)
        fs.power_on()
        assert written(fs, "seq/0") == "a"


def test_calls_that_faults_hold_fail_with_the_power() -> None:
    """A stuck call holds the lock of its file: nobody waits for it to be released."""
    rules = [
        FaultRule(Operation.WRITE, Effect.STUCK, (2, 2), count=None),
        FaultRule(Operation.WRITE, Effect.DELAY, (3, 3), count=None, milliseconds=3_600_000),
    ]
    with make(*rules) as fs:
        handles = [fs.open(f"seq/{number}", READ_WRITE) for number in (0, 1)]
        errors: list[ZonefsError] = []

        def write(handle: int) -> None:
            with contextlib.suppress(ValueError):
                try:
                    fs.write(handle, 0, blocks("a"))
                except ZonefsError as exc:
                    errors.append(exc)

        threads = [threading.Thread(target=write, args=[handle]) for handle in handles]
        for thread in threads:
            thread.start()
        assert isinstance(fs.device, FaultDevice)
        deadline = threading.Event()
        while sum(status.fired for status in fs.device.rules) < 2 or not fs.device.stuck:
            assert not deadline.wait(0.001)
        fs.power_cut(KeepAll())
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        assert len(errors) == 2
        # The rules are there, and hold the next calls.
        assert [status.number for status in fs.device.rules] == [1, 2]
        assert not fs.device.stuck
        stuck = threading.Thread(target=lambda: put(fs, "seq/0", "b"))
        stuck.start()
        while not fs.device.stuck:
            assert not deadline.wait(0.001)
        fs.device.remove_rules()
        stuck.join(SECONDS)
        assert written(fs, "seq/0") == "b"


def test_calls_that_are_stuck_below_the_cache_fail_with_the_power() -> None:
    """Such a call may hold the cache, and the lock of its file; nobody can release it from the mount."""
    memory = MemoryDevice(GEOMETRY)
    format_device(memory, FormatOptions(), uuid=bytes(16))
    below = FaultDevice(memory, [FaultRule(Operation.WRITE, Effect.STUCK, (2, 2), count=None)])
    with Filesystem(FaultDevice(WriteCacheDevice(below), waits=True)) as fs:
        put(fs, "seq/1", "a", synced=True)
        handle = fs.open("seq/0", READ_WRITE)
        fs.write(handle, 0, blocks("b"))
        errors: list[ZonefsError] = []

        def sync() -> None:
            try:
                fs.fsync(handle)
            except ZonefsError as exc:
                errors.append(exc)

        thread = threading.Thread(target=sync)
        thread.start()
        never = threading.Event()
        while not below.stuck:
            assert not never.wait(0.001)
        assert fs.power_cut(KeepNone()) == PowerCut((ZoneLoss(2, BLOCK, 0),))
        thread.join(SECONDS)
        assert [exc.errno_name for exc in errors] == ["EIO"]
        assert not fs.read_only
        assert (written(fs, "seq/0"), written(fs, "seq/1")) == ("", "a")
        below.remove_rules()
        put(fs, "seq/0", "c", synced=True)


def test_files_of_several_devices() -> None:
    """The second has no cache: what was acknowledged there is there; but files are lost like all others."""
    first = MemoryDevice(GEOMETRY)
    format_device(first, FormatOptions(), uuid=bytes(16))
    second = MemoryDevice(GEOMETRY)
    with Filesystem(FaultDevice.over(LinearDevice([Slice(WriteCacheDevice(first)), Slice(second, 2)]))) as fs:
        put(fs, "seq/0", "ab", synced=True)
        put(fs, "seq/0", "c")
        put(fs, "seq/6", "de")
        handle = fs.open("seq/6", READ_WRITE)
        assert fs.power_cut(KeepNone()) == PowerCut((ZoneLoss(2, BLOCK, 0),))
        with pytest.raises(PowerLost):
            fs.write(handle, 2 * BLOCK, blocks("f"))
        assert (written(fs, "seq/0"), written(fs, "seq/6")) == ("ab", "de")
        fs.power_cut(KeepAll(), dead=True)
        with pytest.raises(PowerLost):
            fs.open("seq/6", os.O_RDONLY)
        fs.power_on()
        put(fs, "seq/6", "f", synced=True)
        assert written(fs, "seq/6") == "def"


@pytest.mark.parametrize("name", ["flush", "read"])
def test_a_call_that_comes_to_the_device_after_the_cut_has_failed(
    fs: Filesystem, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A thread can be late. What is flushed then is not what was written; what is read, not what was there."""
    put(fs, "seq/0", "a", synced=True)
    handle = fs.open("seq/0", READ_WRITE)
    fs.write(handle, BLOCK, blocks("b"))
    device_call = getattr(fs.device, name)

    def late(*arguments: object) -> object:
        monkeypatch.undo()
        fs.power_cut(KeepNone())
        return device_call(*arguments)

    monkeypatch.setattr(fs.device, name, late)
    with pytest.raises(PowerLost):
        fs.fsync(handle) if name == "flush" else fs.read(handle, 0, BLOCK)
    assert written(fs, "seq/0") == "a"


def test_who_keeps_something_of_the_view_is_told(fs: Filesystem) -> None:
    heard: list[object] = []

    @contextlib.contextmanager
    def around() -> Iterator[Callable[[ViewChange], None]]:
        heard.append("begin")
        yield heard.append
        heard.append("end")

    fs.around_power = around
    put(fs, "seq/0", "a", synced=True)
    put(fs, "seq/1", "b")
    fs.getattr(6)
    fs.power_cut(KeepNone())
    assert heard == ["begin", ViewChange((2, 3, 6), (3,), False), "end"]
    heard.clear()
    put(fs, "seq/0", "c")
    fs.power_cut(KeepNone(), dead=True)
    fs.power_on()
    assert heard == ["begin", ViewChange((2,), (), True), "end", "begin", ViewChange((2,), (2,), False), "end"]


STEPS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 2), st.integers(1, 4)),
    st.tuples(st.just("sync"), st.integers(0, 2)),
    st.tuples(st.just("reset"), st.integers(0, 2)),
    st.tuples(st.just("cut"), st.integers(0, 1000)),
)


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=40))
def test_each_file_is_what_was_written_up_to_a_point_behind_the_last_sync(steps: list[tuple[object, ...]]) -> None:
    """Files are kept open over cuts; letters are never used twice in a file, so stale data would show."""
    with make() as fs:
        texts = ["", "", ""]
        synced = [0, 0, 0]
        used = 0
        handles: dict[int, int] = {}
        for name, *arguments in steps:
            if name == "cut":
                fs.power_cut(KeepSeed(int(str(arguments[0]))))
                for number, text in enumerate(texts):
                    left = written(fs, f"seq/{number}")
                    assert text.startswith(left)
                    assert len(left) >= synced[number]
                    texts[number], synced[number] = left, len(left)
                for handle in handles.values():
                    with pytest.raises(PowerLost):
                        fs.fsync(handle)
                    fs.release(handle)
                handles.clear()
                assert fs.used == ZONE + sum(map(len, texts)) * BLOCK
                continue
            number = int(str(arguments[0]))
            if number not in handles:
                handles[number] = fs.open(f"seq/{number}", READ_WRITE)
            if name == "write":
                letters = "".join(chr(ord("A") + (used + more) % 57) for more in range(int(str(arguments[1]))))
                letters = letters[: ZONE // BLOCK - len(texts[number])]
                used += len(letters)
                if letters:
                    fs.write(handles[number], len(texts[number]) * BLOCK, blocks(letters))
                    texts[number] += letters
            elif name == "sync":
                fs.fsync(handles[number])
                synced[number] = len(texts[number])
            else:
                fs.truncate(f"seq/{number}", 0)
                texts[number], synced[number] = "", 0
            assert written(fs, f"seq/{number}") == texts[number]


@pytest.mark.parametrize("keep", [KeepNone(), KeepSeed(1), KeepAll()])
def test_under_writers_copies_and_readers(keep: Keep) -> None:
    """What a writer was told to be durable is there, whenever the power is cut; the books agree with the device."""
    with make(limits=(3, 5), options=MountOptions(errors=ErrorsPolicy.REPAIR)) as fs:
        durable = [""] * 4
        rounds = [0] * 4
        stop = threading.Event()
        failures: list[BaseException] = []

        def guarded(work: Callable[[], None]) -> None:
            try:
                while not stop.is_set():
                    # What the power cut interrupts is begun again.
                    with contextlib.suppress(PowerLost, DeviceError):
                        work()
            except BaseException as exc:
                failures.append(exc)

        def write(number: int) -> None:
            path = f"seq/{number}"
            left = written(fs, path)
            assert left.startswith(durable[number]) or not durable[number]
            if len(left) == ZONE // BLOCK:
                durable[number] = ""
                fs.truncate(path, 0)
                left = ""
            handle = fs.open(path, READ_WRITE)
            try:
                letter = chr(ord("a") + rounds[number] % 26)
                rounds[number] += 1
                fs.write(handle, len(left) * BLOCK, blocks(letter))
                fs.fsync(handle)
                durable[number] = left + letter
            finally:
                fs.release(handle)

        def copy() -> None:
            with contextlib.ExitStack() as handles:
                source = fs.open("seq/0", os.O_RDONLY)
                handles.callback(fs.release, source)
                target = fs.open("seq/5", READ_WRITE)
                handles.callback(fs.release, target)
                size = fs.getattr(fs.resolve("seq/5")).size
                if size == ZONE:
                    fs.truncate("seq/5", 0)
                    size = 0
                fs.copy_range(source, 0, target, size, 4 * BLOCK)

        works = [*(lambda number=number: write(number) for number in range(4)), copy]
        threads = [threading.Thread(target=guarded, args=[work]) for work in works]
        for thread in threads:
            thread.start()
        for number in range(10):
            done = sum(rounds)
            # Every cut comes after something was done since the last one.
            while sum(rounds) < done + 3 and not failures:
                stop.wait(0.0005)
            fs.power_cut(keep, dead=number % 3 == 0)
            fs.power_on()
        stop.set()
        for thread in threads:
            thread.join(SECONDS)
            assert not thread.is_alive()
        assert not failures, failures[0]
        for number, text in enumerate(durable):
            assert written(fs, f"seq/{number}").startswith(text)
        assert fs.nr_handles == 0
        sizes = [fs.getattr(zone.number).size for zone, file in fs.report() if file]
        assert fs.used == sum(sizes)
        zones = [zone for zone, file in fs.report() if file]
        assert sizes == [zone.capacity if zone.is_conventional else zone.data_size for zone in zones]
        assert fs.counters.nr_wro_seq_files == 0
        assert fs.counters.nr_active_seq_files == sum(0 < size < ZONE for size in sizes)
