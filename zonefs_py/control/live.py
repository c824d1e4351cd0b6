"""What can be asked of a mount beside what it is: numbers, zone operations, faults, refusals. One function a request.

Each takes the file system and the decoded request, checks all of it before it does anything, and returns what goes
back as JSON. UserError says what is wrong with a request.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zonefs_py.device.description import shorten
from zonefs_py.device.fault import FaultDevice
from zonefs_py.device.fault_rules import any_waits, describe_rule, parse_rule
from zonefs_py.device.power_cut import parse_keep
from zonefs_py.errors import UserError, ZonefsError
from zonefs_py.fs.filesystem import Filesystem
from zonefs_py.fs.refusals import MOST_REFUSALS
from zonefs_py.zone import ZoneOp

log = logging.getLogger(__name__)

LOG_LEVELS = ("debug", "info", "warning", "error")
MOST_RULES = 10_000
"""How many rules a mount can have: each call is held against all of them."""

_OPERATIONS = {op.name.lower(): op for op in ZoneOp}
_changing_rules = threading.Lock()
"""Held while rules are added or removed: whether calls may wait must agree with the rules. A process has one mount."""


def check_fields(request: dict[str, Any], *known: str) -> None:
    """Raise UserError unless *request* has only fields that are known for it."""
    unknown = sorted(set(request) - {"request", *known})
    if unknown:
        raise UserError(f"{request.get('request')} has no field {shorten(unknown[0])}")


def check_numbers(request: dict[str, Any], name: str) -> list[int]:
    """Return the whole numbers in the field *name*. Raises UserError if it is anything else."""
    numbers = request.get(name)
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        raise UserError(f"{name} must be a list of whole numbers")
    return numbers


def check_flag(request: dict[str, Any], name: str) -> bool:
    """Return the field *name*, false if it is not there. Raises UserError if it is neither true nor false."""
    value = request.get(name, False)
    if not isinstance(value, bool):
        raise UserError(f"{name} must be true or false")
    return value


def statistics(fs: Filesystem, request: dict[str, Any]) -> dict[str, Any]:
    """Answer ``statistics``: numbers since the file system was mounted."""
    check_fields(request)
    faults = fs.device if isinstance(fs.device, FaultDevice) else None
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    return {
        "activity": fs.activity._asdict(),
        "copies": {engine.value: asdict(counters) for engine, counters in fs.copy_engine.counters.items()},
        "files": {**fs.counters._asdict(), "open_handles": fs.nr_handles},
        "space": {"used": fs.used, "capacity": fs.capacity},
        "refusals": fs.refusals.by_errno,
        "faults": {
            "rules": len(faults.rules) if faults else 0,
            "fired": sum(status.fired for status in faults.rules) if faults else 0,
            "stuck": len(faults.stuck) if faults else 0,
        },
        "daemon": {
            "pid": os.getpid(),
            "resident": resident,
            "threads": threading.active_count(),
            "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # not the one of the look itself
            "log_level": logging.getLevelName(logging.getLogger().level).lower(),
        },
    }


def manage_zones(fs: Filesystem, request: dict[str, Any]) -> dict[str, Any]:
    """Answer ``manage-zones``: reset, open, close or finish zones, in the order given, until one cannot be."""
    check_fields(request, "operation", "zones")
    name = request.get("operation")
    if not isinstance(name, str) or name not in _OPERATIONS:
        raise UserError(f"operation must be one of {', '.join(_OPERATIONS)}")
    zones = list(dict.fromkeys(check_numbers(request, "zones")))
    names = {zone.number: (zone, file) for zone, file in fs.report()}
    for number in zones:
        if number not in names:
            raise UserError(f"there is no zone {shorten(number)}: the device has zones 0 to {fs.info.nr_zones - 1}")
        if not number:
            raise UserError("zone 0 holds the superblock of the file system that is mounted")
        if names[number][0].is_conventional:
            raise UserError(f"zone {number} is conventional: it has no write pointer to {name}")
    for done, number in enumerate(zones):
        try:
            fs.manage_zone(_OPERATIONS[name], number)
        except ZonefsError as exc:
            if done:
                raise UserError(f"{exc}; {done} of {len(zones)} zones were done before") from exc
            raise
        log.info("zone %d: %s by the control socket", number, name)
    return {"files": [names[number][1] for number in zones]}


def set_log_level(fs: Filesystem, request: dict[str, Any]) -> None:
    """Answer ``set-log-level``."""
    check_fields(request, "level")
    level = request.get("level")
    if not isinstance(level, str) or level not in LOG_LEVELS:
        raise UserError(f"level must be one of {', '.join(LOG_LEVELS)}")
    logging.getLogger().setLevel(level.upper())


def refusals(fs: Filesystem, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Answer ``why``: the last refusals, the oldest first."""
    check_fields(request, "last")
    last = request.get("last", MOST_REFUSALS)
    if type(last) is not int or not last >= 0:
        raise UserError("last must be a whole number, 0 or more")
    return [asdict(refusal) for refusal in fs.refusals.last(min(last, MOST_REFUSALS))]


def power_cut(fs: Filesystem, request: dict[str, Any]) -> dict[str, Any]:
    """Answer ``power-cut``: the mount comes back before the answer, unless it is to stay dead."""
    check_fields(request, "keep", "dead")
    keep = request.get("keep", "none")
    if not isinstance(keep, str):
        raise UserError("keep must be a text: none, all, or seed:N")
    return asdict(fs.power_cut(parse_keep(keep), dead=check_flag(request, "dead")))


def power_on(fs: Filesystem, request: dict[str, Any]) -> None:
    """Answer ``power-on``: a mount that a power cut left dead comes back."""
    check_fields(request)
    fs.power_on()


# Faults


def _fault_device(fs: Filesystem) -> FaultDevice:
    if not isinstance(fs.device, FaultDevice):
        raise UserError(f"{fs.info.name}: the file system was made without a place for faults")
    return fs.device


def add_faults(fs: Filesystem, request: dict[str, Any]) -> list[int]:
    """Answer ``add-faults``: all rules, or none. Returns their numbers."""
    check_fields(request, "rules")
    contents = request.get("rules")
    if not isinstance(contents, list):
        raise UserError("rules must be a list")
    rules = []
    for number, content in enumerate(contents, start=1):
        try:
            rules.append(parse_rule(content))
        except UserError as exc:
            raise UserError(f"rule {number}: {exc}" if len(contents) > 1 else str(exc)) from None
    device = _fault_device(fs)
    with _changing_rules:
        if len(device.rules) + len(rules) > MOST_RULES:
            raise UserError(f"a mount can have {MOST_RULES} rules")
        if any_waits(rules) and not device.info.waits:
            # Before the rules are there, and taken back if they cannot be.
            _let_wait(fs, device, waits=True)
        try:
            numbers = device.add_rules(rules)
        except UserError:
            _stop_waiting(fs, device)
            raise
    for number, rule in zip(numbers, rules, strict=True):
        log.info("rule %d added: %s", number, describe_rule(rule))
    return numbers


def _let_wait(fs: Filesystem, device: FaultDevice, *, waits: bool) -> None:
    device.let_wait(waits)
    if fs.on_waits is not None:
        fs.on_waits(device.info.waits)


def _stop_waiting(fs: Filesystem, device: FaultDevice) -> None:
    """Have nobody reckon with calls that wait, if no rule makes them."""
    if device.info.waits and not any_waits(status.rule for status in device.rules):
        _let_wait(fs, device, waits=False)


def list_faults(fs: Filesystem, request: dict[str, Any]) -> dict[str, Any]:
    """Answer ``list-faults``: rules with their counters, and the calls that are stuck."""
    check_fields(request)
    device = _fault_device(fs)
    return {
        "rules": [
            {"number": number, "matched": matched, "fired": fired, "rule": describe_rule(rule)}
            for number, rule, matched, fired in device.rules
        ],
        "stuck": [stuck._asdict() for stuck in device.stuck],
    }


def remove_faults(fs: Filesystem, request: dict[str, Any]) -> int:
    """Answer ``remove-faults``: rules by number, all if there are none. Returns how many. Calls that wait go on."""
    check_fields(request, "numbers")
    numbers = None if request.get("numbers") is None else check_numbers(request, "numbers")
    device = _fault_device(fs)
    with _changing_rules:
        removed = device.remove_rules(numbers)
        _stop_waiting(fs, device)
    log.info("rules removed: %s", ", ".join(str(status.number) for status in removed) or "none")
    return len(removed)


def release_stuck(fs: Filesystem, request: dict[str, Any]) -> int:
    """Answer ``release-stuck``: calls that are stuck go on, or fail. Returns how many. The rules stay."""
    check_fields(request, "numbers", "fail")
    numbers = None if request.get("numbers") is None else check_numbers(request, "numbers")
    fail = check_flag(request, "fail")
    device = _fault_device(fs)
    known = {status.number for status in device.rules}
    for number in numbers or ():
        if number not in known:
            raise UserError(f"there is no rule {shorten(number)}")
    released = device.release(numbers, fail=fail)
    log.info("%d stuck calls released", released)
    return released


REQUESTS: dict[str, Callable[[Filesystem, dict[str, Any]], Any]] = {
    "statistics": statistics,
    "manage-zones": manage_zones,
    "set-log-level": set_log_level,
    "why": refusals,
    "power-cut": power_cut,
    "power-on": power_on,
    "add-faults": add_faults,
    "list-faults": list_faults,
    "remove-faults": remove_faults,
    "release-stuck": release_stuck,
}
