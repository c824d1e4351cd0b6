"""How a Copy command of NVMe ends: the status codes, and what each means for a copy. Pure.

NVM Express Base, NVM Command Set and Zoned Namespace Command Set Specifications, "Status Code". A code here has its
type in bits 8 to 10 and its value in bits 0 to 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntEnum
from typing import NamedTuple

from zonefs_py.errors import ActiveZonesExhausted, DeviceError, HostFull, OpenZonesExhausted
from zonefs_py.zone import CopyRange

CODE_MASK = 0x7FF
"""Status code type and status code; above them are bits about retries, which we never make."""

DO_NOT_RETRY = 1 << 14


class Completion(NamedTuple):
    """How a command ended: ``status`` without the phase bit, as the ioctl returns it, and dword 0."""

    status: int
    result: int


class Blame(Enum):
    """Where a failed copy stopped."""

    UNKNOWN = "unknown"
    SOURCE = "source"
    EITHER = "either"
    """At the source or at the destination: a zone report tells."""


class StatusRule(NamedTuple):
    """What a status means to us. ``progress``: dword 0 says how many ranges were copied before it."""

    name: str
    error: type[DeviceError] = DeviceError
    blame: Blame = Blame.UNKNOWN
    progress: bool = True


class Status(IntEnum):
    """The status codes that our own target gives."""

    SUCCESS = 0x000
    INVALID_OPCODE = 0x001
    INVALID_FIELD = 0x002
    DATA_TRANSFER_ERROR = 0x004
    INTERNAL_ERROR = 0x006
    INVALID_NAMESPACE = 0x00B
    LBA_OUT_OF_RANGE = 0x080
    CAPACITY_EXCEEDED = 0x081
    INVALID_FORMAT = 0x10A
    SIZE_LIMIT_EXCEEDED = 0x183
    ZONE_BOUNDARY = 0x1B8
    ZONE_FULL = 0x1B9
    ZONE_READ_ONLY = 0x1BA
    ZONE_OFFLINE = 0x1BB
    ZONE_INVALID_WRITE = 0x1BC
    TOO_MANY_ACTIVE = 0x1BD
    TOO_MANY_OPEN = 0x1BE
    ZONE_TRANSITION = 0x1BF
    WRITE_FAULT = 0x280
    READ_ERROR = 0x281


STATUS_RULES: dict[int, StatusRule] = {
    # Refused as a whole: what dword 0 holds then is not about ranges.
    0x001: StatusRule("Invalid Command Opcode", progress=False),
    0x002: StatusRule("Invalid Field in Command", progress=False),
    0x003: StatusRule("Command ID Conflict", progress=False),
    0x004: StatusRule("Data Transfer Error", progress=False),
    0x00B: StatusRule("Invalid Namespace or Format", progress=False),
    0x00C: StatusRule("Command Sequence Error", progress=False),
    0x015: StatusRule("Operation Denied", progress=False),
    0x01D: StatusRule("Sanitize In Progress", progress=False),
    0x020: StatusRule("Namespace is Write Protected", progress=False),
    0x023: StatusRule("Command Prohibited by Lockdown", progress=False),
    0x082: StatusRule("Namespace Not Ready", progress=False),
    0x083: StatusRule("Reservation Conflict", progress=False),
    0x084: StatusRule("Format In Progress", progress=False),
    0x10A: StatusRule("Invalid Format", progress=False),
    # Ended from outside: nobody filled in dword 0.
    0x005: StatusRule("Aborted due to Power Loss", progress=False),
    0x007: StatusRule("Command Abort Requested", progress=False),
    0x008: StatusRule("Aborted due to Submission Queue Deletion", progress=False),
    0x300: StatusRule("Internal Path Error", progress=False),
    0x301: StatusRule("Asymmetric Access Persistent Loss", progress=False),
    0x302: StatusRule("Asymmetric Access Inaccessible", progress=False),
    0x303: StatusRule("Asymmetric Access Transition", progress=False),
    0x360: StatusRule("Controller Pathing Error", progress=False),
    0x370: StatusRule("Host Pathing Error", progress=False),
    0x371: StatusRule("Aborted By Host", progress=False),
    # A range failed.
    0x006: StatusRule("Internal Error"),
    0x021: StatusRule("Command Interrupted"),
    0x080: StatusRule("LBA Out of Range"),
    0x081: StatusRule("Capacity Exceeded", HostFull),
    0x180: StatusRule("Conflicting Attributes"),
    0x181: StatusRule("Invalid Protection Information"),
    0x182: StatusRule("Attempted Write to Read Only Range"),
    0x183: StatusRule("Command Size Limit Exceeded"),
    0x187: StatusRule("Overlapping I/O Range"),
    0x1B8: StatusRule("Zone Boundary Error"),
    0x1B9: StatusRule("Zone Is Full"),
    0x1BA: StatusRule("Zone Is Read Only"),
    0x1BB: StatusRule("Zone Is Offline", blame=Blame.EITHER),
    0x1BC: StatusRule("Zone Invalid Write"),
    0x1BD: StatusRule("Too Many Active Zones", ActiveZonesExhausted),
    0x1BE: StatusRule("Too Many Open Zones", OpenZonesExhausted),
    0x1BF: StatusRule("Invalid Zone State Transition"),
    0x280: StatusRule("Write Fault"),
    0x281: StatusRule("Unrecovered Read Error", blame=Blame.SOURCE),
    0x282: StatusRule("End-to-end Guard Check Error"),
    0x283: StatusRule("End-to-end Application Tag Check Error"),
    0x284: StatusRule("End-to-end Reference Tag Check Error"),
    0x286: StatusRule("Access Denied"),
    0x287: StatusRule("Deallocated or Unwritten Logical Block", blame=Blame.SOURCE),
}
"""Every status that a Copy command is known to end with, but for success.

Which errno a status becomes is our choice where the kernel has none: it answers no copies by commands like these.

- An exhausted limit and a full namespace have the errno that the block layer gives a write that meets them:
  EOVERFLOW, ETOOMANYREFS, ENOSPC.
- Everything else is EIO, also what says that the command was wrong (0x002, 0x183 and others): limits and the write
  pointer were checked before it was sent, so a controller that says so contradicts what it has said of itself. The
  caller did nothing wrong that EINVAL could tell of, and another way of copying must not hide it.
"""

UNKNOWN_STATUS = StatusRule("a status that we do not know", progress=False)


def status_rule(status: int) -> StatusRule:
    """Return what *status*, which is not success, means; any one has a meaning."""
    return STATUS_RULES.get(status & CODE_MASK, UNKNOWN_STATUS)


def is_success(status: int) -> bool:
    """Whether *status* says that the command did all that it was asked to."""
    return not status & CODE_MASK


def copied_ranges(completion: Completion, nr_ranges: int) -> int:
    """Return how many of *nr_ranges* ranges, from the first, a command that ended so has copied for certain.

    Dword 0 of a failed command is the number of the first range that was not copied. Where it cannot be that, 0.
    """
    if is_success(completion.status):
        return nr_ranges
    known = status_rule(completion.status).progress and completion.result < nr_ranges
    return completion.result if known else 0


def copy_error(completion: Completion, ranges: Sequence[CopyRange], what: str) -> DeviceError:
    """Return the error for a command to copy *ranges* that failed so, as far as the completion tells.

    Its ``completed`` are the bytes of the ranges that were copied, and ``source_failed`` is whether the status itself
    blames the source.
    """
    rule = status_rule(completion.status)
    done = copied_ranges(completion, len(ranges))
    code = completion.status & CODE_MASK
    error = rule.error(f"{what}: range {done} of {len(ranges)} failed: {rule.name} (NVMe status {code:#05x})")
    error.completed = sum(part.length for part in ranges[:done])
    error.source_failed = rule.blame is Blame.SOURCE
    return error
