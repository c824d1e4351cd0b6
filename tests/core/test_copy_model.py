"""Random files and random copies, by every engine and within random limits, against a model of plain byte arrays."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.core.copying import Call, CopyDevice, at_most, random_bytes
from zonefs_py.config import ErrorsPolicy, FormatOptions, MountOptions
from zonefs_py.copy.engine import CopyEngine, Engine
from zonefs_py.device.directory import create_device, open_device
from zonefs_py.device.emulated import EmulatedDevice
from zonefs_py.device.memory import MemoryDevice
from zonefs_py.errors import InvalidRequest, ZonefsError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.format import format_device
from zonefs_py.zone import CopyMethod, Geometry, ZoneCondition

DIRECT = os.O_RDWR | os.O_DIRECT

LIMITS = ("copy_offload", "copy_max_bytes", "copy_max_range_bytes", "copy_max_nr_ranges")


# The model.


@dataclass
class ModelFile:
    """A file: all of its bytes, and for a sequential one where its write pointer is."""

    name: str
    zone: int
    capacity: int
    sequential: bool
    data: bytearray = field(init=False)
    size: int = field(init=False)
    opened: bool = field(init=False, default=False)
    """Whether the zone was written since it was last mounted, reset or finished: it is open then."""

    def __post_init__(self) -> None:
        self.data = bytearray(self.capacity)
        self.size = 0 if self.sequential else self.capacity

    @property
    def active(self) -> bool:
        """Whether the zone counts as active."""
        return self.sequential and 0 < self.size < self.capacity

    def condition(self) -> ZoneCondition:
        """The condition of the zone, on a device without a limit of open zones."""
        if not self.sequential:
            return ZoneCondition.NOT_WP
        if self.size in (0, self.capacity):
            return ZoneCondition.FULL if self.size else ZoneCondition.EMPTY
        return ZoneCondition.IMP_OPEN if self.opened else ZoneCondition.CLOSED


@dataclass(frozen=True)
class Shape:
    """A device and its format, as far as copies care."""

    geometry: Geometry
    max_open: int | None
    max_active: int | None
    aggregate: bool
    alignment: int
    """What reflinks must be aligned to."""


class Model:
    """What the files must hold."""

    def __init__(self, shape: Shape) -> None:
        geometry = shape.geometry
        self.block = geometry.block_size
        self.max_active = shape.max_active
        self.conventional: list[ModelFile] = []
        self.sequential: list[ModelFile] = []
        for zone in range(1, geometry.nr_zones):
            size = geometry.last_zone_size if zone == geometry.nr_zones - 1 else geometry.zone_size
            if zone >= geometry.nr_conventional:
                index = len(self.sequential)
                capacity = min(size, geometry.zone_capacity)
                self.sequential.append(ModelFile(f"seq/{index}", zone, capacity, True))
            elif not shape.aggregate:
                index = len(self.conventional)
                self.conventional.append(ModelFile(f"cnv/{index}", zone, size, False))
        if shape.aggregate and geometry.nr_conventional > 1:
            capacity = (geometry.nr_conventional - 1) * geometry.zone_size
            if geometry.nr_conventional == geometry.nr_zones:
                capacity += geometry.last_zone_size - geometry.zone_size
            self.conventional.append(ModelFile("cnv/0", 1, capacity, False))
        self.files = self.conventional + self.sequential

    def nr_active(self) -> int:
        """How many zones are active."""
        return sum(file.active for file in self.files)

    def copied(self, source: ModelFile, source_offset: int, target: ModelFile, offset: int, length: int) -> int | str:
        """Return the count of a copy, or the name of the errno."""
        length = min(length, max(0, source.size - source_offset))
        if not length:
            return 0
        if source is target and abs(source_offset - offset) < length:
            return "EINVAL"
        if offset >= target.capacity:
            return "EFBIG"
        length = min(length, target.capacity - offset)
        if target.sequential:
            length -= length % self.block
            if offset != target.size or not length:
                return "EINVAL"
        return length

    def no_zone_can_become_active(self, target: ModelFile) -> bool:
        """Whether a write to *target* fails, because it would be one active zone too many."""
        empty = target.sequential and not target.size
        return empty and self.max_active is not None and self.nr_active() >= self.max_active

    def copy(self, source: ModelFile, source_offset: int, target: ModelFile, offset: int, length: int) -> None:
        """Copy what can be."""
        target.data[offset : offset + length] = bytes(source.data[source_offset : source_offset + length])
        if target.sequential:
            target.size += length
            target.opened = True


# What is drawn.


@dataclass(frozen=True)
class Copy:
    """A copy between two files by number, at places that the state of the files gives a meaning."""

    source: int
    source_place: tuple[str, int, int]
    target: int
    place: tuple[str, int, int]
    blocks: int
    bytes: int


@dataclass(frozen=True)
class Fill:
    """Write so many blocks to a file: at the write pointer, or a random place."""

    file: int
    blocks: int
    seed: int


@dataclass(frozen=True)
class Truncate:
    """Reset or finish a sequential file."""

    file: int
    finish: bool


@dataclass(frozen=True)
class Limit:
    """Set a limit: bytes in blocks."""

    name: str
    value: int


@dataclass(frozen=True)
class Mount:
    """Mount again, with another engine."""

    engine: str
    buffer: int


Step = Copy | Fill | Truncate | Limit | Mount

FILES = st.integers(0, 20)
ODD_BYTES = st.sampled_from((0,) * 16 + (1, -1, 7, 511))
PLACES = st.tuples(
    st.sampled_from(("wp",) * 8 + ("start", "capacity")), st.sampled_from((0,) * 12 + (1, 2, 3, -1, -2, -4)), ODD_BYTES
)
SOURCE_PLACES = st.tuples(
    st.sampled_from(("start",) * 6 + ("wp",)), st.sampled_from((0, 0, 0, 0, 1, 2, 3, -1, -2)), ODD_BYTES
)
COPIES = st.builds(
    Copy,
    source=FILES,
    source_place=SOURCE_PLACES,
    target=FILES,
    place=PLACES,
    blocks=st.sampled_from((1, 1, 2, 2, 3, 4, 5, 7, 8, 10, 16, 40, 0)),
    bytes=ODD_BYTES.map(abs),
)
FILLS = st.builds(Fill, file=FILES, blocks=st.integers(1, 8), seed=st.integers(0, 999))
LIMIT_STEPS = st.one_of(
    st.builds(Limit, st.just("copy_offload"), st.sampled_from((0, 1, 1, 1))),
    st.builds(Limit, st.sampled_from(LIMITS[1:3]), st.sampled_from((0, 1, 2, 3, 5, 8, 8, 1 << 20, 1 << 20))),
    st.builds(Limit, st.just("copy_max_nr_ranges"), st.sampled_from((0, 1, 2, 3, 128))),
)
MOUNTS = st.builds(
    Mount,
    st.sampled_from(("auto", "auto", "auto", "device", "reflink", "host", "emulate")),
    st.sampled_from((1, 2, 3, 8, 1000)),
)
TRUNCATIONS = st.builds(Truncate, FILES, st.sampled_from((False, False, False, True)))
KINDS = [COPIES] * 10 + [FILLS] * 2 + [LIMIT_STEPS] * 2 + [TRUNCATIONS] * 3 + [MOUNTS]
ONE_STEP: st.SearchStrategy[Step] = st.sampled_from(range(len(KINDS))).flatmap(lambda index: KINDS[index])
# Most files hold something before the first copy.
STEPS = st.builds(
    lambda before, steps: before + steps,
    st.lists(FILLS, min_size=3, max_size=8),
    st.lists(ONE_STEP, min_size=15, max_size=40),
)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """A small device."""
    block = draw(st.sampled_from((512, 512, 4096)))
    size = draw(st.integers(8, 32))
    nr_zones = draw(st.integers(4, 8))
    geometry = Geometry(
        zone_size=size * block,
        zone_capacity=draw(st.integers(8, size)) * block,
        nr_zones=nr_zones,
        nr_conventional=draw(st.integers(0, min(4, nr_zones))),
        block_size=block,
        last_zone_size=draw(st.sampled_from((size, size, 3, 1))) * block,
    )
    kind = draw(st.sampled_from(("none", "none", "open", "active", "active")))
    limit = draw(st.integers(1, 3))
    return Shape(
        geometry,
        limit if kind == "open" else None,
        limit if kind == "active" else None,
        draw(st.booleans()),
        draw(st.sampled_from([blocks for blocks in (1, 2, 4) if not size % blocks])) * block,
    )


# The comparison.


class Comparison:
    """The file system and the model side by side."""

    def __init__(self, shape: Shape, open_inner: Callable[[], EmulatedDevice], methods: tuple[CopyMethod, ...]) -> None:
        self.shape = shape
        self.model = Model(shape)
        self._open_inner = open_inner
        self._methods = methods
        with open_inner() as device:
            format_device(device, FormatOptions(aggregate_conventional=shape.aggregate))
        self.mount("auto", 1000)

    def mount(self, engine: str, buffer: int) -> None:
        """Mount; limits and counters start anew."""
        self.engine, self.buffer = engine, buffer
        self.device = CopyDevice(self._open_inner(), self._methods, self.shape.alignment)
        self.device.before = self.check_call
        self.fs = Filesystem(self.device, MountOptions(ErrorsPolicy.REPAIR, copy=engine))
        wanted = None if engine == "auto" else Engine(engine)
        self.fs.copy_engine = CopyEngine(self.device, wanted, at_most(buffer * self.model.block))
        self.copied = 0
        for file in self.model.files:
            file.opened = False

    def close(self) -> None:
        """Unmount."""
        for engine, done in self.fs.copy_engine.counters.items():
            assert done.bytes == 0 or engine is Engine.EMULATE or engine.value in self.methods()
        assert sum(done.bytes for done in self.fs.copy_engine.counters.values()) == self.copied
        self.fs.close()

    def methods(self) -> list[str]:
        """The engines that the device has."""
        return [method.value for method in self.device.info.copy_methods]

    def check_call(self, call: Call) -> None:
        """No call of the device is above the limits, or the buffer."""
        if call.kind == "copy":
            limits = self.fs.copy_engine.limits
            assert limits.copy_offload
            assert 0 < call.length <= limits.copy_max_bytes
            assert all(0 < piece.length <= limits.copy_max_range_bytes for piece in call.ranges)
            assert 0 < len(call.ranges) <= limits.copy_max_nr_ranges
            assert self.engine in ("auto", call.method and call.method.value)

    def file(self, number: int) -> ModelFile:
        return self.model.files[number % len(self.model.files)]

    def resolve(self, file: ModelFile, place: tuple[str, int, int]) -> int:
        anchor, blocks, more = place
        middle = file.capacity // 2 // self.model.block * self.model.block
        base = {"start": 0, "wp": file.size if file.sequential else middle, "capacity": file.capacity}[anchor]
        return max(0, base + blocks * self.model.block + more)

    def step(self, step: Step) -> None:
        """Do *step* to both and compare."""
        if isinstance(step, Copy):
            self.copy(step)
        elif isinstance(step, Fill):
            self.fill(step)
        elif isinstance(step, Truncate):
            self.truncate(step)
        elif isinstance(step, Limit):
            self.limit(step)
        else:
            self.close()
            self.mount(step.engine, step.buffer)

    def copy(self, step: Copy) -> None:
        source, target = self.file(step.source), self.file(step.target)
        source_offset, offset = self.resolve(source, step.source_place), self.resolve(target, step.place)
        length = step.blocks * self.model.block + step.bytes
        before = self.fs.copy_engine.counters
        expected = self.model.copied(source, source_offset, target, offset, length)
        engines: dict[str, int] = {}
        if isinstance(expected, int) and expected:
            engines = self.engines(source, source_offset, target, offset, expected)
            if self.buffer < 4 and self.needs_odd_bytes(source_offset, offset, expected):
                expected = "ENOMEM"
            elif self.model.no_zone_can_become_active(target):
                expected = "EOVERFLOW"
            else:
                self.model.copy(source, source_offset, target, offset, expected)
        reader, writer = self.fs.open(source.name, os.O_RDONLY), self.fs.open(target.name, os.O_WRONLY)
        answer: int | str
        try:
            answer = self.fs.copy_range(reader, source_offset, writer, offset, length)
        except ZonefsError as exc:
            answer = exc.errno_name
        self.fs.release(reader)
        self.fs.release(writer)
        assert answer == expected
        after = self.fs.copy_engine.counters
        more = {engine.value: after[engine].bytes - before[engine].bytes for engine in Engine}
        if isinstance(expected, str):
            assert not any(more.values())
        else:
            assert {engine: count for engine, count in more.items() if count} == engines
            self.copied += expected
        errors = sum(after[engine].errors - before[engine].errors for engine in Engine)
        assert errors == (expected in ("EOVERFLOW", "ENOMEM"))

    def needs_odd_bytes(self, source_offset: int, offset: int, length: int) -> bool:
        """Whether a part of the copy is not whole blocks at both ends."""
        return any(number % self.model.block for number in (source_offset, offset, length))

    def engines(
        self, source: ModelFile, source_offset: int, target: ModelFile, offset: int, length: int
    ) -> dict[str, int]:
        """How many bytes each engine must copy: the best one that can, of those that are wanted and allowed."""
        zone_size, block = self.shape.geometry.zone_size, self.model.block
        start, to = source.zone * zone_size + source_offset, target.zone * zone_size + offset
        limits = self.fs.copy_engine.limits
        allowed = all(getattr(limits, name) for name in LIMITS)
        methods = [name for name in self.methods() if self.engine in ("auto", name)] if allowed else []
        found = dict.fromkeys([*methods, "emulate"], 0)
        blocks = self.aligned(start, to, length, block)
        found["emulate"] += length - blocks
        if methods[:1] == ["reflink"]:
            alignment = self.shape.alignment
            fits = alignment <= min(limits.copy_max_bytes, limits.copy_max_range_bytes)
            found["reflink"] = self.aligned(start, to, length, alignment) if fits else 0
            blocks -= found["reflink"]
            methods = methods[1:]
        found[methods[0] if methods else "emulate"] += blocks
        return {engine: count for engine, count in found.items() if count}

    def aligned(self, start: int, to: int, length: int, alignment: int) -> int:
        """How many bytes of a copy are aligned at both ends."""
        if (start - to) % alignment:
            return 0
        return max(0, (start + length) // alignment - -(-start // alignment)) * alignment

    def fill(self, step: Fill) -> None:
        file = self.file(step.file)
        length = step.blocks * self.model.block
        offset = file.size if file.sequential else step.seed * self.model.block % file.capacity
        length = min(length, file.capacity - offset)
        no_active = self.model.max_active is not None and self.model.nr_active() >= self.model.max_active
        if not length or (file.sequential and not file.size and no_active):
            return
        data = random_bytes(length, step.seed)
        handle = self.fs.open(file.name, DIRECT)
        assert self.fs.write(handle, offset, data) == length
        self.fs.release(handle)
        file.data[offset : offset + length] = data
        if file.sequential:
            file.size += length
            file.opened = True

    def truncate(self, step: Truncate) -> None:
        file = self.file(step.file)
        no_active = self.model.max_active is not None and self.model.nr_active() >= self.model.max_active
        if not file.sequential or (step.finish and not file.size and no_active):
            return
        size = file.capacity if step.finish else 0
        self.fs.truncate(file.name, size)
        if not step.finish:
            file.data[:] = bytes(file.capacity)
        file.size = size
        file.opened = False

    def limit(self, step: Limit) -> None:
        value = step.value * self.model.block if step.name.endswith("bytes") else step.value
        if value and not self.device.info.copy_methods:
            if step.name == "copy_offload":
                with pytest.raises(InvalidRequest):
                    self.fs.copy_engine.set_limit(step.name, value)
            return
        self.fs.copy_engine.set_limit(step.name, value)

    def check(self) -> None:
        """Compare everything that can be seen."""
        zones = {name: zone for zone, name in reversed(list(self.fs.report())) if name}
        room = 0
        for file in self.model.files:
            zone = zones[file.name]
            assert self.fs.getattr(file.zone).size == file.size
            if file.sequential:
                assert zone.data_size == file.size
                room += file.capacity - file.size
            if self.shape.max_open is None:
                assert zone.condition is file.condition()
            handle = self.fs.open(file.name, os.O_RDONLY)
            assert self.fs.read(handle, 0, file.size) == file.data[: file.size], file.name
            self.fs.release(handle)
        counters = self.fs.counters
        assert (counters.nr_wro_seq_files, counters.nr_active_seq_files) == (0, self.model.nr_active())
        assert self.fs.statfs().blocks_free == room // self.model.block
        assert self.device.inner.nr_active_zones == self.model.nr_active()
        if self.shape.max_open is not None:
            assert self.device.inner.nr_open_zones <= self.shape.max_open
        assert not self.fs.read_only


def compare(
    shape: Shape, open_inner: Callable[[], EmulatedDevice], methods: tuple[CopyMethod, ...], steps: list[Step]
) -> None:
    """Do all of *steps*, checking after each, and mount once more."""
    both = Comparison(shape, open_inner, methods)
    for step in [*steps, Mount("auto", 1)]:
        both.step(step)
        both.check()
    both.close()


METHODS = st.sampled_from(
    (
        (),
        (CopyMethod.HOST,),
        (CopyMethod.REFLINK, CopyMethod.HOST),
        (CopyMethod.REFLINK, CopyMethod.HOST),
        (CopyMethod.DEVICE, CopyMethod.REFLINK, CopyMethod.HOST),
        (CopyMethod.DEVICE, CopyMethod.REFLINK, CopyMethod.HOST),
        (CopyMethod.DEVICE,),
        (CopyMethod.REFLINK,),
    )
)


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> int:
    """How many times more examples than usual."""
    return 40 if request.config.getoption("--long") else 1


def test_in_memory(examples: int) -> None:
    @settings(max_examples=250 * examples, suppress_health_check=list(HealthCheck))
    @given(shape=shapes(), methods=METHODS, steps=STEPS)
    def run(shape: Shape, methods: tuple[CopyMethod, ...], steps: list[Step]) -> None:
        device = MemoryDevice(shape.geometry, shape.max_open, shape.max_active)
        compare(shape, lambda: device, methods, steps)

    run()


@contextlib.contextmanager
def fresh_directory(parent: Path) -> Iterator[Path]:
    """A directory that is removed again."""
    path = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def test_in_a_directory(examples: int, tmp_path: Path) -> None:
    """The host copies between real files, which every mount opens anew."""

    @settings(max_examples=40 * examples, suppress_health_check=list(HealthCheck))
    @given(shape=shapes(), steps=STEPS)
    def run(shape: Shape, steps: list[Step]) -> None:
        with fresh_directory(tmp_path) as directory:
            create_device(directory / "disk", shape.geometry, shape.max_open, shape.max_active)
            compare(shape, lambda: open_device(directory / "disk"), (CopyMethod.HOST,), steps)

    run()
