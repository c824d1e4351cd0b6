"""``zonefs-py zone``: zone management on unmounted devices, and making zones of emulated devices fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from zonefs_py.cli.common import is_device, naming, read_superblock
from zonefs_py.cli.parameters import PATH
from zonefs_py.device.base import ZonedDevice
from zonefs_py.device.stack import open_stack
from zonefs_py.errors import DeviceError, OptionError, UserError
from zonefs_py.zone import ACTIVE_CONDITIONS, CONDITION_NAMES, OPEN_CONDITIONS, Zone, ZoneCondition, ZoneOp

_BROKEN = frozenset({ZoneCondition.READONLY, ZoneCondition.OFFLINE})

_USEFUL = {
    ZoneOp.RESET: ACTIVE_CONDITIONS | {ZoneCondition.FULL},
    ZoneOp.OPEN: ACTIVE_CONDITIONS | {ZoneCondition.EMPTY},
    ZoneOp.CLOSE: OPEN_CONDITIONS,
    ZoneOp.FINISH: ACTIVE_CONDITIONS | {ZoneCondition.EMPTY},
}
"""The conditions in which an operation changes something: what --all means."""

_FORCED = {"readonly": ZoneCondition.READONLY, "offline": ZoneCondition.OFFLINE, "online": None}

_HELP = {
    "reset": "Empty zones: their data is lost.",
    "open": "Open zones explicitly. An emulated device forgets that when it is closed, as at a loss of power.",
    "close": "Close zones that are open.",
    "finish": "Make zones full: they take no more data until they are reset.",
    "readonly": "Make zones of an emulated device read-only, as a failing drive does.",
    "offline": "Make zones of an emulated device fail altogether.",
    "online": "Undo readonly and offline.",
}


@click.group(short_help="Reset, open, close or finish zones; make them fail.")
def zone() -> None:
    """Manage zones by number.

    ZONE is a number as in 'zonefs-py report', or a range such as 8-15. All zones are checked before anything is
    done. Zone 0 holds the superblock of a formatted device: --all leaves it out, and to reset, open, close or finish it
    needs -f.
    """


def parse_zones(words: Iterable[str], nr_zones: int, device: str) -> list[int]:
    """Return the zone numbers that *words* name (``7``, ``8-15``), without repetition, in the order given.

    Raises OptionError for what is not a number, UserError for no zone of *device*, which has *nr_zones*.
    """
    numbers: dict[int, None] = {}
    for word in words:
        first, dash, last = word.partition("-")
        texts = (first, last) if dash else (first, first)
        if not all(text.isascii() and text.isdecimal() for text in texts):
            raise OptionError(f"{word!r} is not a zone: write a number, or a range such as 8-15")
        low, high = (int(text) if len(text) < 19 else nr_zones for text in texts)
        if low > high:
            raise OptionError(f"{word!r} is not a zone: the range runs backwards")
        if high >= nr_zones:
            raise UserError(f"{device}: there is no zone {word}: the device has zones 0 to {nr_zones - 1}")
        numbers.update(dict.fromkeys(range(low, high + 1)))
    return list(numbers)


def _check_selection(zones: tuple[str, ...], all_zones: bool) -> None:
    if bool(zones) == all_zones:
        raise click.UsageError("name zones, or give --all, but not both")


def _manage(op: ZoneOp, path: str, words: tuple[str, ...], *, all_zones: bool, force: bool) -> None:
    _check_selection(words, all_zones)
    if not is_device(path):
        instead = f"zonefs-py ctl {path} zone {op.name.lower()}"
        raise UserError(f"{path} is a mount point: give the device, unmounted, or use '{instead}'")
    with naming(path), open_stack(path) as device:
        zones = device.report_zones()
        formatted = read_superblock(device) is not None
        if all_zones:
            first = 1 if formatted and not force else 0
            chosen = [zone for zone in zones[first:] if not zone.is_conventional and zone.condition in _USEFUL[op]]
        else:
            chosen = [zones[number] for number in parse_zones(words, len(zones), path)]
            for zone in chosen:
                _check_manageable(op, zone, path)
            if formatted and not force and 0 in (zone.number for zone in chosen):
                raise UserError(f"{path}: zone 0 holds the superblock of a zonefs; -f does it all the same")
        for done, zone in enumerate(chosen):
            try:
                device.zone_mgmt(op, zone.number)
            except DeviceError as exc:
                raise UserError(f"{path}: {exc}; {done} of {len(chosen)} zones were done before") from exc
        device.flush()


def _check_manageable(op: ZoneOp, zone: Zone, device: str) -> None:
    if zone.is_conventional:
        raise UserError(f"{device}: zone {zone.number} is conventional: it has no write pointer to {op.name.lower()}")
    if zone.condition in _BROKEN:
        raise UserError(
            f"{device}: zone {zone.number} is {CONDITION_NAMES[zone.condition]};"
            " 'zone online' brings it back if the device is emulated"
        )


def _force(name: str, target: str, words: tuple[str, ...], *, all_zones: bool) -> None:
    _check_selection(words, all_zones)
    condition = _FORCED[name]
    if is_device(target):
        with naming(target), open_stack(target) as device:
            _force_on_device(device, condition, words, all_zones=all_zones)
    else:
        _force_on_mount(target, condition, words, all_zones=all_zones)


def _force_on_device(
    device: ZonedDevice, condition: ZoneCondition | None, words: tuple[str, ...], *, all_zones: bool
) -> None:
    nr_zones = device.info.nr_zones
    device.force_conditions(range(nr_zones) if all_zones else parse_zones(words, nr_zones, device.info.name), condition)


def _force_on_mount(
    mountpoint: str, condition: ZoneCondition | None, words: tuple[str, ...], *, all_zones: bool
) -> None:
    from zonefs_py.control.client import ask

    nr_zones = ask(mountpoint, {"request": "info"})["device"]["nr_zones"]
    numbers = list(range(nr_zones)) if all_zones else parse_zones(words, nr_zones, mountpoint)
    name = None if condition is None else CONDITION_NAMES[condition]
    ask(mountpoint, {"request": "force-condition", "zones": numbers, "condition": name})


def _add(name: str, metavar: str, callback: Callable[..., None], *options: click.Parameter) -> None:
    parameters = [
        click.Argument(["target"], metavar=metavar, type=PATH),
        click.Argument(["zones"], metavar="[ZONE]...", nargs=-1),
        click.Option(["--all", "all_zones"], is_flag=True, help="All zones for which it means something."),
        *options,
    ]
    zone.add_command(click.Command(name, params=parameters, callback=callback, help=_HELP[name]))


def _manage_command(op: ZoneOp) -> Callable[..., None]:
    def callback(target: str, zones: tuple[str, ...], all_zones: bool, force: bool) -> None:
        _manage(op, target, zones, all_zones=all_zones, force=force)

    return callback


def _force_command(name: str) -> Callable[..., None]:
    def callback(target: str, zones: tuple[str, ...], all_zones: bool) -> None:
        _force(name, target, zones, all_zones=all_zones)

    return callback


for _op in ZoneOp:
    _force_option = click.Option(["-f", "--force"], is_flag=True, help="Do it to the zone of the superblock too.")
    _add(_op.name.lower(), "DEVICE", _manage_command(_op), _force_option)
for _name in _FORCED:
    _add(_name, "DEVICE|MOUNTPOINT", _force_command(_name))
