"""What must hold after every step, whatever the step was."""

from __future__ import annotations

from zonefs_py.zone import ZoneCondition

from .oracle import Counters, ModelFile, ModelNode, Observation, Oracle, Stat
from .zones import CLOSED, EXP_OPEN, FULL, IMP_OPEN, ModelZone, ReportedZone

_WITH_WRITE_POINTER = (ZoneCondition.EMPTY, IMP_OPEN, EXP_OPEN, CLOSED)


def check(oracle: Oracle, seen: Observation) -> None:
    """Compare all that *seen* tells with *oracle*, and with itself. AssertionError names what differs."""
    for path, node in oracle.nodes.items():
        check_stat(node, seen.stats[path])
    for zone, reported in zip(oracle.device.zones, seen.report, strict=True):
        check_zone(zone, reported)
    check_file_names(oracle, seen)
    check_sizes_follow_write_pointers(oracle, seen)
    check_counters(oracle, seen)
    check_limits(oracle, seen)
    check_statfs(oracle, seen)
    assert seen.read_only == oracle.read_only, f"file system read-only: {seen.read_only}"


def check_stat(node: ModelNode, seen: Stat) -> None:
    """Compare one stat field by field."""
    where = node.path or "the root"
    shown = {"ino": seen.ino, "mode": oct(seen.mode), "nlink": seen.nlink, "uid": seen.uid, "gid": seen.gid}
    wanted = {"ino": node.ino, "mode": oct(node.mode), "nlink": node.nlink, "uid": node.uid, "gid": node.gid}
    shown |= {"size": seen.size, "blocks": seen.blocks, "block_size": seen.block_size}
    wanted |= {"size": node.size, "blocks": node.capacity // 512, "block_size": node.block_size}
    assert shown == wanted, f"stat of {where} is {shown}, not {wanted}"
    for name in ("atime", "mtime", "ctime"):
        moment, time = getattr(node, name), getattr(seen, name)
        assert moment.admits(time), f"{name} of {where} is {time}, not {moment}"


def check_zone(zone: ModelZone, reported: ReportedZone) -> None:
    """Compare one entry of the zone report."""
    what = f"zone {zone.number}"
    assert (reported.number, reported.conventional) == (zone.number, zone.conventional), what
    assert (reported.size, reported.capacity) == (zone.size, zone.capacity), what
    if zone.lazily_moved:
        return
    assert reported.condition is zone.condition, f"{what} is {reported.condition.name}, not {zone.condition.name}"
    expected = zone.wpoffset if zone.condition in _WITH_WRITE_POINTER else None
    assert reported.wpoffset == expected, f"write pointer of {what} is {reported.wpoffset}, not {expected}"


def check_file_names(oracle: Oracle, seen: Observation) -> None:
    """Every zone but that of the superblock belongs to the file that the tree has for it."""
    names: dict[int, str] = {}
    for file in oracle.files:
        names |= dict.fromkeys(range(file.zone, file.zone + file.nr_zones), file.path)
    reported = {zone.number: zone.file for zone in seen.report if zone.file is not None}
    assert reported == names, f"files in the report: {reported}, not {names}"


def check_sizes_follow_write_pointers(oracle: Oracle, seen: Observation) -> None:
    """A sequential file is as long as its zone is written, unless something happened that nobody noticed yet."""
    for file in oracle.files:
        if file.conventional or oracle.disturbed(file):
            continue
        zone = seen.report[file.zone]
        written = zone.capacity if zone.condition is FULL else zone.wpoffset
        assert seen.stats[file.path].size == written, f"size of {file.path} and write pointer of zone {file.zone}"


def check_counters(oracle: Oracle, seen: Observation) -> None:
    """The counters lie between what the oracle admits, and are a recount of what the report shows."""
    low, high = oracle.counters()
    assert counters_agree(oracle, seen.counters), f"counters {seen.counters}, expected {low} to {high}"
    if any(oracle.disturbed(file) or file.immutable for file in oracle.files):
        return
    active = (IMP_OPEN, EXP_OPEN, CLOSED)
    recount = sum(seen.report[file.zone].condition in active for file in oracle.files if not file.conventional)
    assert seen.counters.nr_active_seq_files == recount, "nr_active_seq_files and the zone report"


def counters_agree(oracle: Oracle, seen: Counters) -> bool:
    """Whether *seen* lies between what *oracle* admits."""
    low, high = oracle.counters()
    return (
        (seen.max_wro_seq_files, seen.max_active_seq_files) == (low.max_wro_seq_files, low.max_active_seq_files)
        and seen.nr_wro_seq_files == low.nr_wro_seq_files
        and low.nr_active_seq_files <= seen.nr_active_seq_files <= high.nr_active_seq_files
    )


def check_limits(oracle: Oracle, seen: Observation) -> None:
    """The device never has more zones open or active than it can."""
    conditions = [zone.condition for zone in seen.report]
    nr_open = sum(condition in (IMP_OPEN, EXP_OPEN) for condition in conditions)
    nr_active = nr_open + conditions.count(CLOSED)
    assert oracle.setup.max_open is None or nr_open <= oracle.setup.max_open
    assert oracle.setup.max_active is None or nr_active <= oracle.setup.max_active


def check_statfs(oracle: Oracle, seen: Observation) -> None:
    """The totals are the oracle's, and the sums of what stat shows of the files."""
    assert seen.statfs == oracle.statfs(), f"{seen.statfs}, not {oracle.statfs()}"
    files = oracle.files
    block_size = seen.statfs.block_size
    assert seen.statfs.blocks == sum(seen.stats[file.path].blocks for file in files) * 512 // block_size
    free = sum(_unwritten(file, seen.stats[file.path]) for file in files)
    assert seen.statfs.blocks_free == free // block_size


def _unwritten(file: ModelFile, seen: Stat) -> int:
    return 0 if file.conventional else seen.blocks * 512 - seen.size


def check_content(oracle: Oracle, file: ModelFile, data: bytes) -> None:
    """*data* is what a reader gets of the whole *file*."""
    expected = oracle.content(file)[: file.size]
    if data == expected:
        return
    assert len(data) == len(expected), f"{file.path} reads {len(data)} bytes of {len(expected)}"
    first = next(i for i, (got, wanted) in enumerate(zip(data, expected, strict=True)) if got != wanted)
    got, wanted = data[first : first + 8].hex(), expected[first : first + 8].hex()
    raise AssertionError(f"{file.path} differs from byte {first}: {got} instead of {wanted}")
