"""A device that fails as a list of rules says: for the errors that a healthy emulated device never gives.

Rules are matched in order, and a rule strikes a fixed number of times: nothing here is left to chance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from zonefs_py.device.base import ZonedDevice
from zonefs_py.errors import DeviceError
from zonefs_py.zone import DeviceInfo, Zone, ZoneCondition, ZoneOp

Call = Literal["report", "read", "write", "flush"] | ZoneOp


@dataclass
class Rule:
    """Fail *call* (a ZoneOp for its management) to *zone* (None: to any), *skip* times not and then *times* times.

    Of a write *blocks* blocks are written before it fails. *effect* is called with the device below when the rule
    strikes, before the error is raised.
    """

    call: Call
    zone: int | None = None
    skip: int = 0
    times: int = 1
    blocks: int = 0
    effect: Callable[[ZonedDevice], None] | None = None
    error: Callable[[str], DeviceError] = DeviceError
    struck: int = field(default=0, init=False)

    def matches(self, call: Call, zone: int | None) -> bool:
        """Whether the rule strikes now; counts."""
        if self.call != call or self.zone not in (None, zone) or self.struck >= self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.struck += 1
        return True


class FailingDevice(ZonedDevice):
    """Another device, with rules about what fails."""

    def __init__(self, inner: ZonedDevice, *rules: Rule) -> None:
        self.inner = inner
        self.rules = list(rules)
        self.flushed: list[int | None] = []
        """What `flush` was called with and did."""
        self.closed = False
        self._lock = threading.Lock()
        """Guards the rules."""

    def _strike(self, call: Call, zone: int | None) -> Rule | None:
        with self._lock:
            return next((rule for rule in self.rules if rule.matches(call, zone)), None)

    def _fail(self, rule: Rule, what: str) -> DeviceError:
        if rule.effect is not None:
            rule.effect(self.inner)
        return rule.error(f"{what} fails as asked for")

    @property
    def info(self) -> DeviceInfo:
        return self.inner.info

    def report_zones(self, start: int = 0, count: int | None = None) -> list[Zone]:
        if rule := self._strike("report", start if count == 1 else None):
            raise self._fail(rule, f"zone {start}: report")
        return self.inner.report_zones(start, count)

    def read(self, offset: int, length: int) -> bytes:
        number = offset // self.info.zone_size
        if rule := self._strike("read", number):
            raise self._fail(rule, f"zone {number}: read of {length} bytes")
        return self.inner.read(offset, length)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        number = offset // self.info.zone_size
        if rule := self._strike("write", number):
            done = rule.blocks * self.info.block_size
            if done:
                self.inner.write(offset, bytes(data[:done]))
            raise self._fail(rule, f"zone {number}: write of {len(data)} bytes")
        self.inner.write(offset, data)

    def zone_mgmt(self, op: ZoneOp, number: int) -> None:
        if rule := self._strike(op, number):
            raise self._fail(rule, f"zone {number}: {op.name.lower()}")
        self.inner.zone_mgmt(op, number)

    def flush(self, number: int | None = None) -> None:
        if rule := self._strike("flush", number):
            raise self._fail(rule, "flush")
        self.inner.flush(number)
        self.flushed.append(number)

    def close(self) -> None:
        self.closed = True
        self.inner.close()

    def force_condition(self, number: int, condition: ZoneCondition | None) -> None:
        """Pass on to the device below."""
        self.inner.force_condition(number, condition)
