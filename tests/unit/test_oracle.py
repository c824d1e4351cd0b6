"""The oracle itself against tables of measurements of kernel zonefs, row by row."""

from __future__ import annotations

import dataclasses

import pytest

from tests.model.oracle import Counters, Format, Handle, ModelFile, Observation, Options, Oracle, Setup, Stat
from tests.model.zones import ReportedZone
from zonefs_py.zone import Geometry, ZoneCondition

B = 4096
CAPACITY = 16 * B
ZONE_SIZE = 16 * B
SEQ = "seq/0"

EMPTY, IMP_OPEN, EXP_OPEN = ZoneCondition.EMPTY, ZoneCondition.IMP_OPEN, ZoneCondition.EXP_OPEN
CLOSED, FULL = ZoneCondition.CLOSED, ZoneCondition.FULL
READONLY, OFFLINE = ZoneCondition.READONLY, ZoneCondition.OFFLINE


def make(
    *,
    options: Options | None = None,
    max_open: int | None = None,
    max_active: int | None = None,
    capacity: int = CAPACITY,
    aggregate: bool = False,
) -> Oracle:
    """Sixteen zones, four of them conventional, as they were measured; only smaller."""
    geometry = Geometry(ZONE_SIZE, capacity, 16, 4, B, ZONE_SIZE)
    return Oracle(Setup(geometry, max_open, max_active, Format(aggregate=aggregate), options or Options()))


class User:
    """Does what the first branch of each answer says, and returns its value or errno name."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self._next = 0

    def _take(self, branches: list) -> object:
        branches[0].effect()
        return branches[0].errno or branches[0].value

    def open(self, path: str = SEQ, mode: str = "rw direct") -> int | str:
        """*mode* holds the words r, w or rw, direct, append, truncate; the handle, or an errno name."""
        words = mode.split()
        self._next += 1
        handle = Handle(path, "r" in words[0], "w" in words[0], "direct" in words, "append" in words)
        errno = self._take(self.oracle.open(path, self._next, handle, truncates="truncate" in words))
        return errno if isinstance(errno, str) else self._next

    def write(self, handle: int, offset: int, length: int) -> object:
        return self._take(self.oracle.write(handle, offset, b"d" * length))

    def read(self, handle: int, offset: int, length: int) -> object:
        value = self._take(self.oracle.read(handle, offset, length))
        return len(value) if isinstance(value, bytes) else value

    def truncate(self, size: int, path: str = SEQ) -> object:
        return self._take(self.oracle.truncate(path, size))

    def close(self, handle: int) -> None:
        self._take(self.oracle.close(handle))

    def chmod(self, permissions: int, path: str = SEQ) -> object:
        return self._take(self.oracle.chmod(path, permissions))

    def file(self, path: str = SEQ) -> ModelFile:
        return self.oracle.file(path)

    def condition(self, path: str = SEQ) -> ZoneCondition:
        return self.oracle.zone_of(self.file(path)).condition

    def fill(self, blocks: int, path: str = SEQ) -> None:
        """Write so many blocks to *path* and close it."""
        handle = self.open(path)
        assert isinstance(handle, int)
        assert self.write(handle, self.file(path).size, blocks * B) == blocks * B
        self.close(handle)


def snapshot(oracle: Oracle) -> object:
    """All that a refusal must leave alone."""
    nodes = [dataclasses.astuple(node) for node in oracle.nodes.values()]
    zones = [dataclasses.astuple(zone) for zone in oracle.device.zones]
    return nodes, zones, oracle.read_only, oracle.counters(), oracle.statfs()


# The tree.


def test_tree_and_sizes() -> None:
    oracle = make()
    numbers = {path: node.ino for path, node in oracle.nodes.items()}
    assert numbers[""] == 16
    assert (numbers["cnv"], numbers["seq"]) == (17, 18)
    assert (numbers["cnv/0"], numbers["seq/0"]) == (1, 4)
    assert [oracle.nodes[path].size for path in ("", "cnv", "seq")] == [4, 3, 12]
    assert oracle.nodes[""].nlink == 4
    assert oracle.nodes[SEQ].mode == 0o100640
    statfs = oracle.statfs()
    assert (statfs.blocks, statfs.blocks_free, statfs.files) == (15 * 16, 12 * 16, 17)


def test_no_conventional_directory_with_one_conventional_zone() -> None:
    oracle = Oracle(Setup(Geometry(ZONE_SIZE, CAPACITY, 4, 1, B, ZONE_SIZE)))
    assert "cnv" not in oracle.nodes
    assert oracle.nodes["seq"].ino == 4 + 2
    assert oracle.lookup("", b"cnv")[0].errno == "ENOENT"


@pytest.mark.parametrize(
    ("parent", "name", "errno"),
    [
        ("seq", b"00", "ENOENT"),
        ("seq", b"12", "ENOENT"),
        ("seq", b"x" * 17, "ENAMETOOLONG"),
        ("seq", b"x" * 16, "ENOENT"),
        ("seq/0", b"x", "ENOTDIR"),
    ],
)
def test_names(parent: str, name: bytes, errno: str) -> None:
    assert make().lookup(parent, name)[0].errno == errno


# Writing to a sequential file.

HALF = CAPACITY // 2

# Handle's mode, offset, length, outcome; the file is half full.
WRITES_TO_HALF = [
    ("rw direct", HALF, B, B),
    ("rw direct", HALF, 3 * B, 3 * B),
    ("rw direct", HALF - B, B, "EINVAL"),
    ("rw direct", HALF + B, B, "EINVAL"),
    ("rw direct", HALF - B, 2 * B, "EINVAL"),
    ("rw direct", HALF + 1, B, "EINVAL"),
    ("rw direct", HALF, B + 100, "EINVAL"),
    ("rw direct", HALF, HALF + B, HALF),
    ("rw direct", HALF, HALF + 100, HALF),
    ("rw direct", CAPACITY, B, "EFBIG"),
    ("rw direct", CAPACITY, 0, "EFBIG"),
    ("rw direct", CAPACITY + 1, 7, "EFBIG"),
    ("rw direct", 1 << 62, B, "EFBIG"),
    ("rw direct", HALF, 0, 0),
    ("rw direct", 0, 0, 0),
    ("rw", HALF, B, "EIO"),
    ("rw", 0, 0, "EIO"),
    ("rw", CAPACITY, B, "EFBIG"),
    ("rw append", HALF, B, "EIO"),
    ("rw direct append", 0, B, B),
    ("rw direct append", HALF, HALF + B, HALF),
    ("r direct", HALF, B, "EBADF"),
]


@pytest.mark.parametrize(("mode", "offset", "length", "outcome"), WRITES_TO_HALF)
def test_write_to_half_full_file(mode: str, offset: int, length: int, outcome: int | str) -> None:
    user = User(make())
    user.fill(8)
    handle = user.open(mode=mode)
    assert isinstance(handle, int)
    before = snapshot(user.oracle)
    assert user.write(handle, offset, length) == outcome
    if isinstance(outcome, int) and outcome:
        assert user.file().size == HALF + outcome
    else:
        assert snapshot(user.oracle) == before


@pytest.mark.parametrize(
    ("mode", "offset", "length", "outcome"),
    [
        ("rw direct", 0, B, "EINVAL"),
        ("rw direct", CAPACITY, B, "EFBIG"),
        ("rw direct append", 0, B, "EFBIG"),
        ("rw append", 0, B, "EIO"),
    ],
)
def test_write_to_full_file(mode: str, offset: int, length: int, outcome: str) -> None:
    user = User(make())
    user.fill(16)
    handle = user.open(mode=mode)
    assert isinstance(handle, int)
    assert user.write(handle, offset, length) == outcome


def test_condition_over_a_life() -> None:
    user = User(make())
    assert user.condition() is EMPTY
    user.fill(1)
    assert user.condition() is IMP_OPEN
    assert user.truncate(CAPACITY) is None
    assert user.condition() is FULL
    assert user.truncate(0) is None
    assert user.condition() is EMPTY
    user.fill(16)
    assert user.condition() is FULL


@pytest.mark.parametrize(
    ("mode", "offset", "length", "outcome"),
    [
        ("rw", 100, 200, 200),
        ("rw direct", B, B, B),
        ("rw direct", 100, B, "EINVAL"),
        ("rw direct", B, 100, "EINVAL"),
        ("rw", CAPACITY, 1, "EFBIG"),
        ("rw", CAPACITY, 0, 0),
        ("rw", CAPACITY - 100, 200, 100),
        ("rw direct", CAPACITY - 100, 200, "EINVAL"),
        ("rw append", 0, B, "EINVAL"),
        ("rw direct append", 0, B, "EINVAL"),
        ("rw append", CAPACITY, B, "EFBIG"),
        ("rw append", 0, 0, 0),
    ],
)
def test_write_to_conventional_file(mode: str, offset: int, length: int, outcome: int | str) -> None:
    user = User(make())
    handle = user.open("cnv/0", mode)
    assert isinstance(handle, int)
    assert user.write(handle, offset, length) == outcome


# Reading.


@pytest.mark.parametrize(
    ("mode", "offset", "length", "outcome"),
    [
        ("r", 1, 100, 100),
        ("r", HALF - 10, 100, 10),
        ("r", HALF, 100, 0),
        ("r", CAPACITY + 5, 100, 0),
        ("r direct", 0, B, B),
        ("r direct", HALF - B, 4 * B, B),
        ("r direct", HALF + 1, 100, 0),
        ("r direct", 1, B, "EINVAL"),
        ("r direct", 0, 100, "EINVAL"),
        ("w direct", 0, B, "EBADF"),
    ],
)
def test_read(mode: str, offset: int, length: int, outcome: int | str) -> None:
    user = User(make())
    user.fill(8)
    handle = user.open(mode=mode)
    assert isinstance(handle, int)
    assert user.read(handle, offset, length) == outcome


# Truncating.


@pytest.mark.parametrize(
    ("blocks", "size", "outcome", "condition"),
    [
        (0, 0, None, EMPTY),
        (0, CAPACITY, None, FULL),
        (0, B, "EPERM", EMPTY),
        (8, 0, None, EMPTY),
        (8, HALF, "EPERM", IMP_OPEN),
        (8, CAPACITY, None, FULL),
        (8, B, "EPERM", IMP_OPEN),
        (8, CAPACITY + 1, "EFBIG", IMP_OPEN),
        (16, 0, None, EMPTY),
        (16, CAPACITY, None, FULL),
        (16, HALF, "EPERM", FULL),
    ],
)
def test_truncate(blocks: int, size: int, outcome: str | None, condition: ZoneCondition) -> None:
    user = User(make())
    if blocks:
        user.fill(blocks)
    assert user.truncate(size) == outcome
    assert user.condition() is condition
    if outcome is None:
        assert user.file().size == size


def test_largest_file_decides_between_two_errnos() -> None:
    below = User(make(capacity=12 * B))
    assert below.truncate(12 * B + 1) == "EPERM"
    assert below.truncate(ZONE_SIZE + 1) == "EFBIG"
    aggregated = User(make(aggregate=True))
    assert aggregated.truncate(3 * CAPACITY) == "EPERM"
    assert aggregated.truncate(3 * CAPACITY + 1) == "EFBIG"


def test_conventional_files_and_directories_keep_their_size() -> None:
    user = User(make())
    assert user.truncate(CAPACITY, "cnv/0") == "EPERM"
    assert user.truncate(CAPACITY + 1, "cnv/0") == "EFBIG"
    assert user.truncate(0, "seq") == "EISDIR"
    assert user.open("cnv/0", "r truncate") == "EPERM"
    assert user.open("seq", "w") == "EISDIR"


def test_truncate_by_owner_drops_set_id_bits() -> None:
    user = User(make())
    user.fill(1)
    assert user.chmod(0o6755) is None
    assert user.oracle.truncate(SEQ, 0, uid=1000)[0].errno is None
    user.oracle.truncate(SEQ, 0, uid=1000)[0].effect()
    assert user.file().mode & 0o7777 == 0o755


# Limits.


def limited(max_open: int | None = None, max_active: int | None = None) -> User:
    return User(make(options=Options(explicit_open=True), max_open=max_open, max_active=max_active))


def test_too_many_files_open_for_writing() -> None:
    user = limited(max_open=2)
    first = user.open("seq/0")
    assert isinstance(first, int)
    assert isinstance(user.open("seq/1"), int)
    assert user.condition("seq/0") is EXP_OPEN
    assert user.open("seq/2", "w truncate") == "EBUSY"
    assert isinstance(user.open("seq/2", "r"), int)
    assert isinstance(user.open("cnv/0"), int)
    assert isinstance(user.open("seq/1", "w"), int), "the same file does not count twice"
    assert user.oracle.counters()[0] == Counters(2, 2, 0, 2)
    user.close(first)
    assert user.condition("seq/0") is EMPTY
    assert isinstance(user.open("seq/2"), int)


def test_without_explicit_open_nothing_is_refused() -> None:
    user = User(make(max_open=2))
    for index in range(8):
        assert isinstance(user.open(f"seq/{index}"), int)
    assert user.oracle.counters()[0] == Counters(2, 8, 0, 0)
    for index in range(4):
        user.fill(1, f"seq/{index}")
    conditions = [user.condition(f"seq/{index}") for index in range(4)]
    assert sorted(conditions) == [IMP_OPEN, IMP_OPEN, CLOSED, CLOSED]


def test_explicit_open_is_ignored_without_limits() -> None:
    user = User(make(options=Options(explicit_open=True)))
    assert isinstance(user.open(), int)
    assert user.condition() is EMPTY


def test_active_limit_alone() -> None:
    user = limited(max_active=6)
    for index in range(6):
        assert isinstance(user.open(f"seq/{index}"), int)
    assert user.open("seq/6") == "EOVERFLOW"
    assert not user.oracle.read_only


def test_explicit_open_over_a_life() -> None:
    user = limited(max_open=4)
    handle = user.open()
    assert isinstance(handle, int)
    assert user.write(handle, 0, B) == B
    assert user.condition() is EXP_OPEN
    assert user.truncate(0) is None
    assert user.condition() is EXP_OPEN, "opened again"
    assert user.truncate(CAPACITY) is None
    assert user.condition() is FULL
    assert user.oracle.counters()[0] == Counters(4, 1, 0, 0)
    assert user.truncate(0) is None
    assert user.condition() is EMPTY, "not opened again"
    user.close(handle)
    assert user.oracle.counters()[0] == Counters(4, 0, 0, 0)


def test_filling_a_zone_ends_its_being_open() -> None:
    user = limited(max_open=4)
    handle = user.open()
    assert isinstance(handle, int)
    assert user.write(handle, 0, CAPACITY) == CAPACITY
    assert user.oracle.counters()[0] == Counters(4, 1, 0, 0)
    user.close(handle)
    assert user.condition() is FULL
    assert not user.oracle.read_only


@pytest.mark.parametrize(
    ("policy", "mode", "read_only"),
    [("remount-ro", 0o640, True), ("zone-ro", 0o440, False), ("zone-offline", 0, False), ("repair", 0o640, False)],
)
def test_write_beyond_active_limit(policy: str, mode: int, read_only: bool) -> None:
    user = User(make(options=Options(policy), max_active=2))
    user.fill(1, "seq/0")
    user.fill(1, "seq/1")
    handle = user.open("seq/2")
    assert isinstance(handle, int)
    assert user.write(handle, 0, B) == "EOVERFLOW"
    assert user.file("seq/2").mode & 0o777 == mode
    assert user.oracle.read_only is read_only


def test_finish_when_limits_are_exhausted() -> None:
    user = User(make(max_open=4, max_active=4))
    for index in range(4):
        user.fill(1, f"seq/{index}")
    assert user.truncate(CAPACITY, "seq/4") == "EOVERFLOW", "an empty zone would become active"
    assert user.truncate(CAPACITY, "seq/0") is None, "an open zone needs nothing more"
    assert user.truncate(CAPACITY, "seq/4") is None
    assert user.truncate(0, "seq/4") is None


def test_closed_zone_cannot_open_when_all_are_active() -> None:
    user = User(make(max_open=1, max_active=2))
    user.fill(1, "seq/0")
    user.fill(1, "seq/1")
    assert (user.condition("seq/0"), user.condition("seq/1")) == (CLOSED, IMP_OPEN)
    assert user.truncate(CAPACITY, "seq/0") == "ETOOMANYREFS"
    assert user.truncate(CAPACITY, "seq/2") == "EOVERFLOW"


# Error handling. The file has one block, like the one that was measured.

BLOCK_BEHIND = "a block is written to the device"
RESET_BEHIND = "the device resets the zone"
FINISHED_BEHIND = "the device finishes the zone"

# What happened; then mode, size and whether the mount is read-only, by policy.
AFTER_A_FAILED_WRITE = [
    (BLOCK_BEHIND, {"remount-ro": (0o640, B, True), "zone-ro": (0o440, B, False)}),
    (BLOCK_BEHIND, {"zone-offline": (0, 0, False), "repair": (0o640, 2 * B, False)}),
    (RESET_BEHIND, {"remount-ro": (0o640, 0, True), "zone-ro": (0o440, B, False)}),
    (RESET_BEHIND, {"zone-offline": (0, 0, False), "repair": (0o640, 0, False)}),
    (FINISHED_BEHIND, {"remount-ro": (0o640, B, True), "zone-ro": (0o440, B, False)}),
    (FINISHED_BEHIND, {"zone-offline": (0, 0, False), "repair": (0o640, CAPACITY, False)}),
    (READONLY, {"remount-ro": (0o440, B, True), "zone-ro": (0o440, B, False)}),
    (READONLY, {"zone-offline": (0, 0, False), "repair": (0o440, B, False)}),
    (OFFLINE, {"remount-ro": (0, 0, True), "zone-ro": (0, 0, False)}),
    (OFFLINE, {"zone-offline": (0, 0, False), "repair": (0, 0, False)}),
]


def disturb(user: User, what: object) -> None:
    device, zone = user.oracle.device, user.file().zone
    if isinstance(what, ZoneCondition):
        user.oracle.force(zone, what)
    elif what == BLOCK_BEHIND:
        device.write(zone, B, b"x" * B)
    elif what == RESET_BEHIND:
        device.reset(zone)
    else:
        device.finish(zone)


@pytest.mark.parametrize(
    ("what", "policy", "after"),
    [(what, policy, after) for what, row in AFTER_A_FAILED_WRITE for policy, after in row.items()],
)
def test_failed_write(what: object, policy: str, after: tuple[int, int, bool]) -> None:
    user = User(make(options=Options(policy)))
    user.fill(1)
    handle = user.open()
    assert isinstance(handle, int)
    disturb(user, what)
    assert user.file().size == B, "nobody has noticed"
    assert user.write(handle, B, B) == "EIO"
    mode, size, read_only = after
    assert (user.file().mode & 0o777, user.file().size, user.oracle.read_only) == (mode, size, read_only)
    assert user.oracle.read_only or user.chmod(0o640, "seq/1") is None, "other files keep working"


def test_repaired_file_can_be_written_on() -> None:
    user = User(make(options=Options("repair")))
    user.fill(1)
    disturb(user, BLOCK_BEHIND)
    handle = user.open()
    assert isinstance(handle, int)
    assert user.write(handle, B, B) == "EIO"
    assert user.write(handle, 2 * B, B) == B


@pytest.mark.parametrize("policy", ["remount-ro", "zone-ro", "zone-offline", "repair"])
def test_reads_and_truncates_of_bad_zones(policy: str) -> None:
    user = User(make(options=Options(policy)))
    user.fill(1)
    handle = user.open()
    assert isinstance(handle, int)
    user.oracle.force(user.file().zone, READONLY)
    assert user.read(handle, 0, B) == B
    assert user.truncate(0) == "EIO"
    assert user.truncate(CAPACITY) == "EIO"
    assert (user.file().mode & 0o777, user.oracle.read_only) == (0o640, False)
    user.oracle.force(user.file().zone, OFFLINE)
    assert isinstance(user.open(), int)
    assert user.read(handle, 0, B) == "EIO"
    assert (user.file().mode & 0o777, user.file().size) == (0, 0)
    assert user.oracle.read_only is (policy == "remount-ro")


@pytest.mark.parametrize("condition", [READONLY, OFFLINE])
def test_bad_zone_at_mount(condition: ZoneCondition) -> None:
    user = User(make())
    user.fill(1)
    user.oracle.force(user.file().zone, condition)
    user.oracle.mount_again(Options())[0].effect()
    assert (user.file().mode & 0o777, user.file().size, user.oracle.read_only) == (0, 0, False)
    assert user.oracle.statfs().blocks_free == 12 * 16


def test_degraded_files() -> None:
    user = User(make(options=Options("zone-ro")))
    user.fill(1)
    handle = user.open()
    assert isinstance(handle, int)
    disturb(user, BLOCK_BEHIND)
    assert user.write(handle, B, B) == "EIO"
    assert user.write(handle, B, B) == "EPERM"
    assert user.read(handle, 0, B) == B
    assert user.open(mode="w") == "EPERM"
    assert user.chmod(0o600) == "EPERM"
    assert user.truncate(0) == "EPERM"
    user.oracle.mount_again(Options())[0].effect()
    assert (user.file().mode & 0o777, user.file().size, user.condition()) == (0o640, 2 * B, CLOSED)


def test_read_only_file_system() -> None:
    user = User(make())
    user.fill(1)
    handle = user.open()
    assert isinstance(handle, int)
    disturb(user, BLOCK_BEHIND)
    assert user.write(handle, B, B) == "EIO"
    assert user.write(handle, B, B) == "EROFS"
    assert user.read(handle, 0, B) == B
    assert user.truncate(0) == "EROFS"
    assert user.chmod(0o600) == "EROFS"
    assert user.open(mode="r truncate") == "EROFS"
    assert user.oracle.create("seq", b"new")[0].errno == "ENOENT"
    assert user.oracle.remove("seq", b"0")[0].errno == "EROFS"
    assert user.oracle.remount(Options())[0].errno is None
    user.oracle.remount(Options())[0].effect()
    assert user.truncate(0) is None


def test_remount_read_only_with_a_write_handle() -> None:
    user = User(make())
    handle = user.open()
    assert isinstance(handle, int)
    assert user.oracle.remount(Options(read_only=True))[0].errno == "EBUSY"
    user.close(handle)
    assert user.oracle.remount(Options(read_only=True))[0].errno is None


# Names and attributes.


def test_namespace() -> None:
    oracle = make()
    assert oracle.create("seq", b"new")[0].errno == "ENOENT"
    assert oracle.create("seq", b"0")[0].errno == "EEXIST"
    assert oracle.remove("seq", b"0")[0].errno == "EPERM"
    assert oracle.remove("seq", b"99")[0].errno == "ENOENT"
    assert oracle.rename("seq", b"0", "seq", b"1")[0].errno == "EPERM"
    assert oracle.rename("seq", b"0", "cnv", b"new")[0].errno == "ENOENT"


def test_directory_modes() -> None:
    user = User(make())
    assert user.chmod(0o755, "seq") == "EPERM"
    assert user.chmod(0o555, "seq") is None
    assert user.chmod(0, "") is None


def test_attributes_are_lost_at_unmount() -> None:
    user = User(make())
    assert user.chmod(0o4755) is None
    user.oracle.chown(SEQ, 1000, 1000)[0].effect()
    user.oracle.mount_again(Options())[0].effect()
    assert (user.file().mode, user.file().uid) == (0o100640, 0)


# What the oracle takes over from an observation.


def observe(oracle: Oracle, wpoffset_of_seq_0: int) -> Observation:
    """What an obedient system would show, but the zone of seq/0 is open, with that write pointer."""
    report = []
    for zone in oracle.device.zones:
        pointed = zone.condition in (EMPTY, IMP_OPEN, EXP_OPEN, CLOSED)
        wpoffset = zone.wpoffset if pointed else None
        start = zone.number * ZONE_SIZE
        entry = ReportedZone(
            zone.number, zone.conventional, zone.condition, start, zone.size, zone.capacity, wpoffset, None
        )
        report.append(entry)
    number = oracle.file(SEQ).zone
    report[number] = dataclasses.replace(report[number], condition=IMP_OPEN, wpoffset=wpoffset_of_seq_0)
    stats = {path: Stat(node.ino, node.mode, 1, 0, 0, node.size, 0, B, 0, 0, 0) for path, node in oracle.nodes.items()}
    return Observation(stats, report, oracle.counters()[0], oracle.statfs(), oracle.read_only)


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_torn_write_is_adopted(done: int) -> None:
    user = User(make(options=Options("repair")))
    handle = user.open()
    assert isinstance(handle, int)
    user.oracle.write_fault = SEQ
    assert user.write(handle, 0, 4 * B) == "EIO"
    user.oracle.adopt(observe(user.oracle, done * B))
    assert user.file().size == done * B
    assert user.oracle.content(user.file())[: 4 * B] == b"d" * done * B + bytes((4 - done) * B)


def test_impossible_write_pointer_is_not_adopted() -> None:
    user = User(make())
    handle = user.open()
    assert isinstance(handle, int)
    user.oracle.write_fault = SEQ
    assert user.write(handle, 0, 2 * B) == "EIO"
    with pytest.raises(AssertionError, match="write pointer at"):
        user.oracle.adopt(observe(user.oracle, 3 * B))


def test_a_zone_that_the_device_has_not_looked_at_is_not_settled() -> None:
    """A truncation to the size that the file has: the report that shows this size does not tell what was done."""
    user = User(make())
    zone = user.oracle.zone_of(user.file())
    user.oracle.device.move_lazily(zone.number, B, b"x" * B)
    assert isinstance(user.open(mode="rw direct truncate"), int)
    user.oracle.adopt(observe(user.oracle, 0))
    assert zone.lazily_moved
    assert zone.wpoffset == B
