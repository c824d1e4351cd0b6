"""The state machine: one set of rules for every driver. Each step is answered by driver and oracle, then everything
that can be seen is compared. A refused call must change nothing, which the comparison after it shows.

`make_machine` returns a class for ``run_state_machine_as_test``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from typing import Any

from hypothesis import currently_in_test_context, note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from zonefs_py.zone import ZoneCondition, ZoneOp

from . import invariants, strategies
from .drivers import Difference, Driver, Refused, wait_until
from .oracle import Branch, Handle, ModelFile, Options, Oracle, Setup, choose
from .strategies import Amount, Place
from .zones import BAD

MAX_HANDLES = 6
NAMES = (b"0", b"1", b"cnv", b"seq", b"00", b"-1", b"99", b"x", b"sixteen_bytes_xx", b"seventeen_bytes_x")
CLOCK_SLACK_NS = 20_000_000
YEAR_NS = 365 * 24 * 3600 * 10**9

_indices = st.integers(0, 99)
_IDS = (0, 1000, 65534)
_MODES = (0o640, 0o600, 0o444, 0o000, 0o777, 0o4755, 0o6755, 0o2640, 0o555)


def say(text: str) -> None:
    """Put *text* into hypothesis' report of a failure; nothing in a plain test."""
    if currently_in_test_context():
        note(text)


def also(branch: Branch, effect: Callable[[], None]) -> Branch:
    """*branch*, with one more *effect*."""

    def both() -> None:
        branch.effect()
        effect()

    return Branch(branch.errno, branch.value, both)


def make_machine(make_driver: Callable[[], Driver], setups: st.SearchStrategy[Setup]) -> type[RuleBasedStateMachine]:
    """Return a state machine class whose every run has a driver of its own and a setup out of *setups*."""

    class Machine(ZonefsMachine):
        @initialize(setup=setups)
        def start(self, setup: Setup) -> None:
            self.begin(make_driver(), setup)

    return Machine


class ZonefsMachine(RuleBasedStateMachine):
    """The rules. `begin` comes first."""

    driver: Driver
    oracle: Oracle

    def __init__(self) -> None:
        super().__init__()
        self._started = False
        self._generation = 0
        self._next_handle = 0
        self._steps_since_mount = 0

    def begin(self, driver: Driver, setup: Setup) -> None:
        """Start *driver* with *setup*."""
        self.driver = driver
        self._started = True
        now = self._now()
        driver.start(setup)
        self.oracle = Oracle(setup, now)
        self._compare()
        times = {(seen.atime, seen.mtime, seen.ctime) for seen in driver.observe(self.oracle.nodes).stats.values()}
        assert len(times) == 1, "everything has the time of the mount"

    def teardown(self) -> None:
        if not self._started:
            return
        try:
            if hasattr(self, "oracle"):
                self._compare_contents()
        finally:
            self.driver.stop()

    # One step.

    @staticmethod
    def _now() -> int:
        # File times come from a coarse clock, which is some milliseconds behind.
        return time.time_ns() - CLOCK_SLACK_NS

    def _differs(self, difference: Difference) -> bool:
        return difference in self.driver.differences

    def _step(self, verb: str, branches: list[Branch], call: Callable[[], Any], **facts: Any) -> bool:
        """Do *call*, hold its outcome against *branches* and look at everything; return whether it was accepted.

        *facts* are for the driver's `admit`.
        """
        self.oracle.now = self._now()
        self._steps_since_mount += 1
        branches = self.driver.admit(verb, branches, **facts)
        errno, value = None, None
        try:
            value = call()
        except Refused as exc:
            errno = exc.errno_name
        say(f"    {verb}: {errno or 'accepted'}")
        choose(branches, errno, value).effect()
        self._drop_taken()
        self._compare()
        return errno is None

    def _drop_taken(self) -> None:
        """Close what was taken from who had it open, because reads of it did not come to the file system.

        That is admitted only where such reads could show what is not, or may not be, the file's.
        """
        if not self._differs(Difference.READS_PASS_BY):
            return
        for number, handle in list(self.oracle.handles.items()):
            file = self.oracle.file(handle.path)
            if (file.immutable or self.oracle.disturbed(file)) and self.driver.is_taken(number):
                say(f"    {handle} was taken back")
                self._drop(number)

    def _drop(self, number: int) -> None:
        branches = self.oracle.close(number)
        answer = None
        try:
            self.driver.close(number)
        except Refused as exc:
            answer = exc.errno_name
        assert answer == "EIO", "close(2) of what was taken back"
        branches[0].effect()
        self._wait_for_counters()

    def _compare(self) -> None:
        seen = self.driver.observe(self.oracle.nodes)
        self.oracle.adopt(seen)
        invariants.check(self.oracle, seen)

    def _compare_contents(self, *paths: str) -> None:
        for file in self.oracle.files:
            if (not paths or file.path in paths) and not self.oracle.disturbed(file) and not file.unreadable:
                self.oracle.may_touch(file)
                invariants.check_content(self.oracle, file, self.driver.read_whole(file.path))

    # Picking.

    def _pick(self, index: int) -> ModelFile:
        """A file, the sequential ones first: a shrunk example is about seq/0."""
        files = sorted(self.oracle.files, key=lambda file: file.conventional)
        return files[index % len(files)]

    def _pick_sequential(self, index: int) -> ModelFile:
        files = [file for file in self.oracle.files if not file.conventional]
        return files[index % len(files)]

    def _pick_node(self, index: int) -> str:
        return sorted(self.oracle.nodes, key=lambda path: (path.count("/") == 0, path))[index % len(self.oracle.nodes)]

    def _pick_handle(self, index: int) -> int:
        return list(self.oracle.handles)[index % len(self.oracle.handles)]

    def _handle(self, file: ModelFile, *, writes: bool, direct: bool, append: bool = False) -> int | None:
        """A handle of that kind, opened if there is none; None if that is refused."""
        for number, handle in self.oracle.handles.items():
            fits = handle.writes if writes else handle.reads
            if handle.path == file.path and fits and handle.direct == direct and handle.append == append:
                return number
        return self._open(file.path, os.O_RDWR if writes else os.O_RDONLY, direct=direct, append=append)

    def _open(
        self, path: str, access: int, *, direct: bool = False, append: bool = False, truncates: bool = False
    ) -> int | None:
        if len(self.oracle.handles) >= MAX_HANDLES:
            self._close(next(iter(self.oracle.handles)))
        number = self._next_handle
        self._next_handle += 1
        flags = access | (os.O_DIRECT if direct else 0)
        flags |= (os.O_APPEND if append else 0) | (os.O_TRUNC if truncates else 0)
        handle = Handle(
            path,
            reads=access != os.O_WRONLY,
            writes=access != os.O_RDONLY,
            direct=direct,
            append=append,
        )
        branches = self.oracle.open(path, number, handle, truncates=truncates)
        if access == os.O_RDONLY and self._differs(Difference.READS_PASS_BY):
            branches = [also(branch, lambda: self.oracle.may_touch(self.oracle.file(path))) for branch in branches]
        say(f"    open {path} as {handle}{', truncate' if truncates else ''}")
        accepted = self._step("open", branches, lambda: self.driver.open(number, path, flags))
        return number if accepted else None

    def _close(self, number: int) -> None:
        say(f"    close {self.oracle.handles[number]}")
        branches = self.oracle.close(number)
        if not self._differs(Difference.CLOSE_RETURNS_EARLY):
            self._step("close", branches, lambda: self.driver.close(number))
            return
        self.driver.close(number)
        branches[0].effect()
        self._wait_for_counters()
        self._drop_taken()
        self._compare()

    def _wait_for_counters(self) -> None:
        wait_until(
            "the counters follow a close",
            lambda: invariants.counters_agree(self.oracle, self.driver.counters()),
        )

    def _data(self, file: ModelFile, offset: int, length: int) -> bytes:
        self._generation += 1
        return strategies.pattern(file.ino, self._generation, offset, length)

    # Rules: files.

    @rule(index=_indices, access=st.sampled_from((os.O_RDONLY, os.O_WRONLY, os.O_RDWR)), flags=st.integers(0, 7))
    def open_file(self, index: int, access: int, flags: int) -> None:
        file = self._pick(index)
        self._open(file.path, access, direct=bool(flags & 1), append=bool(flags & 2), truncates=flags & 4 == 4)

    @precondition(lambda self: self._started and self.oracle.handles)
    @rule(index=_indices)
    def close_file(self, index: int) -> None:
        self._close(self._pick_handle(index))

    @rule(index=_indices, amount=strategies.whole_blocks(), appends=st.booleans())
    def write_sequentially(self, index: int, amount: Amount, appends: bool) -> None:
        """As a well-behaved writer does: direct, at the write pointer, whole blocks."""
        file = self._pick_sequential(index)
        number = self._handle(file, writes=True, direct=True, append=appends)
        if number is not None:
            self._write(number, file.size, amount.resolve(file, file.size))

    @rule(index=_indices, blocks=st.integers(1, 4), nr_writes=st.integers(2, 4))
    def write_some_more(self, index: int, blocks: int, nr_writes: int) -> None:
        """One block-wise write after another, each in place."""
        file = self._pick_sequential(index)
        number = self._handle(file, writes=True, direct=True)
        for _ in range(nr_writes if number is not None else 0):
            assert number is not None
            self._write(number, file.size, blocks * file.block_size)

    @rule(first=_indices, nr_files=st.integers(2, 5), amount=strategies.whole_blocks())
    def write_to_several(self, first: int, nr_files: int, amount: Amount) -> None:
        """What runs into the limits."""
        for index in range(first, first + nr_files):
            file = self._pick_sequential(index)
            number = self._handle(file, writes=True, direct=True)
            if number is not None:
                self._write(number, file.size, amount.resolve(file, file.size))

    @rule(
        index=_indices,
        place=strategies.places(),
        amount=strategies.amounts(),
        flags=st.sampled_from(("direct", "direct", "buffered", "direct append", "buffered append", "append once")),
    )
    def write_anything(self, index: int, place: Place, amount: Amount, flags: str) -> None:
        file = self._pick(index)
        direct, appends = "buffered" not in flags, flags.endswith("append")
        number = self._handle(file, writes=True, direct=direct, append=appends)
        if number is None:
            return
        offset = place.resolve(file)
        if "append" in flags:
            offset = min(offset, file.capacity - 1)  # the offset of an appending write is not looked at
        self._write(number, offset, amount.resolve(file, offset), append=True if flags == "append once" else None)

    @precondition(lambda self: self._started and self.oracle.handles)
    @rule(index=_indices, place=strategies.places(), amount=strategies.amounts())
    def write_through_any_handle(self, index: int, place: Place, amount: Amount) -> None:
        """Also through handles that are open for reading only, or outlived an error."""
        number = self._pick_handle(index)
        handle = self.oracle.handles[number]
        file = self.oracle.file(handle.path)
        offset = place.resolve(file)
        if handle.append:
            offset = min(offset, file.capacity - 1)
        self._write(number, offset, amount.resolve(file, offset))

    def _write(self, number: int, offset: int, length: int, append: bool | None = None) -> bool:
        handle = self.oracle.handles[number]
        file = self.oracle.file(handle.path)
        data = self._data(file, file.size if handle.append or append else offset, length)
        say(f"    write {handle} at {offset} length {length} append {append}; size {file.size} of {file.capacity}")
        accepted = self._step(
            "write",
            self.oracle.write(number, offset, data, append=append),
            lambda: self.driver.write(number, offset, data, append),
            empty=not data,
            appends_to_cnv=file.conventional and bool(handle.append if append is None else append),
        )
        self._compare_contents(file.path)
        return accepted

    @rule(index=_indices, place=strategies.places(), amount=strategies.amounts(), direct=st.booleans())
    def read_anything(self, index: int, place: Place, amount: Amount, direct: bool) -> None:
        file = self._pick(index)
        number = self._handle(file, writes=False, direct=direct)
        if number is not None:
            offset = place.resolve(file)
            self._read(number, offset, amount.resolve(file, offset))

    @precondition(lambda self: self._started and self.oracle.handles)
    @rule(index=_indices, place=strategies.places(), amount=strategies.amounts())
    def read_through_any_handle(self, index: int, place: Place, amount: Amount) -> None:
        number = self._pick_handle(index)
        file = self.oracle.file(self.oracle.handles[number].path)
        offset = place.resolve(file)
        self._read(number, offset, amount.resolve(file, offset))

    def _read(self, number: int, offset: int, length: int) -> None:
        handle = self.oracle.handles[number]
        say(f"    read {handle} at {offset} length {length}")
        branches = self.oracle.read(number, offset, length)
        file = self.oracle.file(handle.path)
        passes_by = self._differs(Difference.READS_PASS_BY) and not handle.writes and not handle.direct
        taken = file.unreadable or self.oracle.zone_of(file).condition is ZoneCondition.OFFLINE
        if passes_by and self.oracle.disturbed(file) and not taken:
            # What the device holds, also where the file does not know of it yet.
            data = self.oracle.content(file)[offset : min(offset + length, self.oracle.zone_of(file).data_size())]
            branches = [*branches, Branch(None, data, lambda: self.oracle.may_touch(file))]
        self._step("read", branches, lambda: self.driver.read(number, offset, length), empty=not length)

    @precondition(lambda self: self._started and self.oracle.handles)
    @rule(index=_indices)
    def fsync(self, index: int) -> None:
        number = self._pick_handle(index)
        self._step("fsync", self.oracle.fsync(number), lambda: self.driver.fsync(number))

    @rule(
        index=_indices,
        to=st.sampled_from(("0", "0", "0", "capacity", "capacity", "size", "block", "byte", "capacity+1", "too large")),
        by_handle=st.booleans(),
        uid=st.sampled_from((0, 0, 1000)),
    )
    def truncate(self, index: int, to: str, by_handle: bool, uid: int) -> None:
        file = self._pick(index)
        sizes = {
            "0": 0,
            "capacity": file.capacity,
            "size": file.size,
            "block": file.size + file.block_size,
            "byte": 1,
            "capacity+1": file.capacity + 1,
            "too large": self.oracle.largest_file() + 1,
        }
        size = sizes[to]
        open_handles = [n for n, h in self.oracle.handles.items() if h.path == file.path and h.writes]
        say(f"    truncate {file.path} to {size} as {uid}; size {file.size} of {file.capacity}")
        if by_handle or self._differs(Difference.CALLER_IS_ROOT):
            uid = 0
        if uid:  # whose truncate takes set-id bits away
            self._step("chmod", self.oracle.chmod(file.path, 0o6755), lambda: self.driver.chmod(file.path, 0o6755))
        by_handle = by_handle and bool(open_handles)
        branches = self.oracle.truncate(file.path, size, uid=uid, by_handle=by_handle)
        if by_handle:
            number = open_handles[0]
            self._step("truncate", branches, lambda: self.driver.truncate_handle(number, file.path, size))
        else:
            self._step("truncate", branches, lambda: self.driver.truncate(file.path, size, uid))
        self._compare_contents(file.path)

    # Rules: attributes and names.

    @rule(
        index=_indices,
        verb=st.sampled_from(("chmod", "chown", "utimes")),
        permissions=st.sampled_from(_MODES),
        owner=st.tuples(st.sampled_from(_IDS), st.sampled_from(_IDS)),
        time=st.tuples(st.sampled_from((-30, 0, 40, 530)), st.integers(0, 10**9 - 1)),
    )
    def change_attributes(
        self, index: int, verb: str, permissions: int, owner: tuple[int, int], time: tuple[int, int]
    ) -> None:
        path = self._pick_node(index)
        if verb == "chmod":
            say(f"    chmod {path!r} {permissions:o}")
            self._step(verb, self.oracle.chmod(path, permissions), lambda: self.driver.chmod(path, permissions))
        elif verb == "chown":
            say(f"    chown {path!r} {owner}")
            self._step(verb, self.oracle.chown(path, *owner), lambda: self.driver.chown(path, *owner))
        else:
            years, nanoseconds = time
            atime = years * YEAR_NS + nanoseconds
            mtime = atime + 5
            say(f"    utimes {path!r} {atime}")
            branches = self.oracle.utimes(path, atime, mtime)
            self._step(verb, branches, lambda: self.driver.utimes(path, atime, mtime))

    @rule(
        path=st.sampled_from(("", "seq", "cnv")),
        verb=st.sampled_from(("lookup", "lookup in a file", "list", "open", "truncate")),
        name=st.sampled_from(NAMES),
        access=st.sampled_from((os.O_WRONLY, os.O_RDWR)),
    )
    def use_directory(self, path: str, verb: str, name: bytes, access: int) -> None:
        if path not in self.oracle.nodes:
            return
        if verb == "list":
            self.oracle.may_touch(self.oracle.nodes[path])
            assert self.driver.readdir(path) == self.oracle.readdir(path)
        elif verb == "open":
            self._open(path, access)
        elif verb == "truncate":
            self._step(verb, self.oracle.truncate(path, 0), lambda: self.driver.truncate(path, 0))
        else:
            parent = path if verb == "lookup" else self._pick(0).path
            self._step("lookup", self.oracle.lookup(parent, name), lambda: self.driver.lookup(parent, name))

    @rule(
        verb=st.sampled_from(("create", "remove", "rename")),
        parents=st.tuples(_indices, _indices),
        names=st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)),
    )
    def change_the_namespace(self, verb: str, parents: tuple[int, int], names: tuple[bytes, bytes]) -> None:
        """Always refused."""
        directories = [path for path, node in self.oracle.nodes.items() if node.is_directory]
        parent, other = (directories[index % len(directories)] for index in parents)
        name, other_name = names
        read_only = self.oracle.read_only
        directory = self._is_directory(parent, name)
        if verb == "create":
            branches = self.oracle.create(parent, name)
            self._step(verb, branches, lambda: self.driver.create(parent, name), read_only=read_only)
        elif verb == "remove":
            branches = self.oracle.remove(parent, name)
            self._step(
                verb, branches, lambda: self.driver.remove(parent, name), read_only=read_only, directory=directory
            )
        else:
            if (parent, name) == (other, other_name):
                return  # does nothing and succeeds
            if directory or self._is_directory(other, other_name):
                return  # the kernel has many answers for directories, before it asks anybody
            branches = self.oracle.rename(parent, name, other, other_name)
            self._step(verb, branches, lambda: self.driver.rename(parent, name, other, other_name), read_only=read_only)

    def _is_directory(self, parent: str, name: bytes) -> bool:
        return not parent and name in (b"cnv", b"seq") and name.decode() in self.oracle.nodes

    # Rules: the device behaves, or is touched behind the file system's back.

    def _may_be_disturbed(self, file: ModelFile) -> bool:
        """Moving a zone that explicit-open holds open would leave open what the close of it does then."""
        return not file.held_open and not self.oracle.zone_of(file).lazily_moved

    def _can_force(self) -> bool:
        frozen = self._differs(Difference.READ_ONLY_MOUNT_FREEZES_THE_DEVICE)
        return not (frozen and self.oracle.mounted_read_only)

    @rule(index=_indices, condition=st.sampled_from(BAD))
    def zone_goes_bad(self, index: int, condition: ZoneCondition) -> None:
        file = self._pick_sequential(index)
        zone = self.oracle.zone_of(file)
        if zone.lazily_moved or zone.condition in BAD or not self._can_force():
            return
        say(f"    zone of {file.path} becomes {condition.name}")
        self.driver.force(file.zone, condition)
        self.oracle.force(file.zone, condition)
        self._take_back(file)
        self._compare()

    def _take_back(self, file: ModelFile) -> None:
        """Who reads *file* past the file system has lost it when its zone is offline, as if he had read just then."""
        if not self._differs(Difference.READS_PASS_BY):
            return
        readers = [n for n, handle in self.oracle.handles.items() if handle.path == file.path and not handle.writes]
        for number in readers:
            if self.driver.is_taken(number):
                self.oracle.now = self._now()
                self.oracle.read(number, 0, file.block_size)[0].effect()
                break
        self._drop_taken()

    @rule(index=_indices)
    def zone_gets_well(self, index: int) -> None:
        bad = [file for file in self.oracle.files if self.oracle.zone_of(file).condition in BAD]
        bad = [file for file in bad if not file.held_open]
        device = self.oracle.device
        if (
            not self._can_force()
            or not bad
            or (device.max_active is not None and device.nr_active() >= device.max_active)
        ):
            return  # the device has no room for one more active zone
        file = bad[index % len(bad)]
        say(f"    zone of {file.path} gets well")
        self.driver.force(file.zone, None)
        self.oracle.force(file.zone, None)
        self._compare()

    @rule(index=_indices, blocks=st.integers(1, 2))
    def somebody_writes(self, index: int, blocks: int) -> None:
        """Directly to the device, at the write pointer."""
        file = self._pick_sequential(index)
        zone = self.oracle.zone_of(file)
        length = min(blocks * file.block_size, zone.capacity - zone.data_size())
        if not self._may_be_disturbed(file) or zone.condition in BAD or not length:
            return
        wpoffset = zone.wpoffset
        data = self._data(file, wpoffset, length)
        say(f"    {length} bytes are written to the zone of {file.path} at {wpoffset}")
        if not self._differs(Difference.MOVES_ARE_LAZY):
            refused = self.oracle.device.refuses_write(file.zone, wpoffset)
            branches = [Branch(refused)]
            if not refused:
                branches = [Branch(None, effect=lambda: self.oracle.device.write(file.zone, wpoffset, data))]
            self._step("device write", branches, lambda: self.driver.move_by_write(file.zone, wpoffset, data))
        elif self._lazy_move_keeps_resources(file, wpoffset + length):
            self.driver.move_by_write(file.zone, wpoffset, data)
            self.oracle.device.move_lazily(file.zone, wpoffset + length, data)
            self._compare()

    @rule(index=_indices, op=st.sampled_from((ZoneOp.RESET, ZoneOp.FINISH)))
    def somebody_manages(self, index: int, op: ZoneOp) -> None:
        """Reset or finish, directly on the device."""
        file = self._pick_sequential(index)
        zone = self.oracle.zone_of(file)
        device = self.oracle.device
        if not self._may_be_disturbed(file) or zone.condition in BAD:
            return
        say(f"    zone of {file.path}: {op.name}")
        if not self._differs(Difference.MOVES_ARE_LAZY):
            refuses, act = (
                (device.refuses_reset, device.reset) if op is ZoneOp.RESET else (device.refuses_finish, device.finish)
            )
            refused = refuses(file.zone)
            branches = [Branch(refused, effect=(lambda: None) if refused else (lambda: act(file.zone)))]
            self._step("device operation", branches, lambda: self.driver.move_by_operation(file.zone, op))
        else:
            target = 0 if op is ZoneOp.RESET else zone.capacity
            if zone.data_size() != target and self._lazy_move_keeps_resources(file, target):
                self.driver.move_by_operation(file.zone, op)
                device.move_lazily(file.zone, target, b"")
                self._compare()

    def _lazy_move_keeps_resources(self, file: ModelFile, wpoffset: int) -> bool:
        """Whether the move leaves the number of active zones alone, or nobody counts them."""
        setup = self.oracle.setup
        zone = self.oracle.zone_of(file)
        if setup.max_open is None and setup.max_active is None:
            return True
        return 0 < zone.data_size() < zone.capacity and 0 < wpoffset < zone.capacity

    @precondition(lambda self: self._started and not self._differs(Difference.NO_FAULTS))
    @rule(index=_indices, amount=strategies.whole_blocks(), done=st.integers(0, 3))
    def write_with_a_fault(self, index: int, amount: Amount, done: int) -> None:
        """The device fails the write after *done* blocks; a conventional zone's before anything is written."""
        file = self._pick(index)
        number = self._handle(file, writes=True, direct=True)
        if number is None:
            return
        offset = 0 if file.conventional else file.size
        if self.oracle.device.refuses_write(file.zone, offset):
            return  # for a reason of its own
        self.driver.fail_next_write(0 if file.conventional else done)
        self.oracle.write_fault = file.path
        self._write(number, offset, amount.resolve(file, offset))
        struck = not self.driver.disarm()
        assert struck or self.oracle.write_fault is not None
        self.oracle.write_fault = None

    @precondition(lambda self: self._started and not self._differs(Difference.NO_FAULTS))
    @rule(index=_indices, direct=st.booleans())
    def read_with_a_fault(self, index: int, direct: bool) -> None:
        file = self._pick(index)
        if file.immutable or self.oracle.disturbed(file):
            return  # whether a failed read then leads to error handling is open
        number = self._handle(file, writes=False, direct=direct)
        if number is None:
            return
        self.driver.fail_next_read()
        self.oracle.read_fault = file.path
        self._read(number, 0, file.block_size)
        self.driver.disarm()
        self.oracle.read_fault = None

    # Rules: the mount.

    @rule(options=strategies.options(), read_only=st.sampled_from((False, False, False, True)))
    def remount(self, options: Options, read_only: bool) -> None:
        kept = self._differs(Difference.REMOUNT_KEEPS_EXPLICIT_OPEN) and self.oracle.options.explicit_open
        chosen = Options(options.errors, options.explicit_open or kept, read_only)
        say(f"    {chosen}")
        branches = self.oracle.remount(chosen)
        frozen = self.oracle.mounted_read_only and not read_only
        self._step("remount", branches, lambda: self.driver.remount(chosen), frozen=frozen)

    @precondition(lambda self: self._started and self._steps_since_mount >= self.driver.steps_between_mounts)
    @rule(options=strategies.options(), read_only=st.sampled_from((False, False, False, False, True)))
    def mount_again(self, options: Options, read_only: bool) -> None:
        """Unmount, with a power cycle, and mount."""
        self._steps_since_mount = 0
        chosen = Options(options.errors, options.explicit_open, read_only)
        say(f"    {chosen}")
        for number, handle in list(self.oracle.handles.items()):
            file = self.oracle.file(handle.path)
            if file.held_open and self.oracle.disturbed(file):
                self._close(number)  # what this does to the zone is open, and cannot be told any more after the mount
        self._step("mount", self.oracle.mount_again(chosen), lambda: self.driver.mount_again(chosen))
        self._compare_contents()


@contextlib.contextmanager
def stepping(driver: Driver, setup: Setup) -> Any:
    """Yield a machine that plain tests drive by its rules, and tear it down."""
    machine = ZonefsMachine()
    try:
        machine.begin(driver, setup)
        yield machine
    finally:
        machine.teardown()
