"""A zoned SCSI disk made of scsi_debug, whose commands can be made to fail: in the machine (docs/vm.md)."""

from __future__ import annotations

from pathlib import Path

from tests.equality.geometry import MIB, Geometry
from tests.equality.zoned import ZonedBlockDevice
from tools.machine.guest import devices

_READ, _WRITE, _SYNCHRONISE, _MANAGE, _REPORT = 0x88, 0x8A, 0x91, 0x94, 0x95
_COMMANDS = {"read": _READ, "write": _WRITE, "flush": _SYNCHRONISE, "manage": _MANAGE, "report": _REPORT}

# Host byte, driver byte, status byte, sense key, additional sense code and its qualifier.
_RESULTS = {
    "hardware": "0 0 2 4 44 0",
    "medium": "0 0 2 3 11 0",
    "aborted": "0 0 2 b 47 0",
    "protection": "0 0 2 b 10 1",
    "full": "0 0 2 7 27 7",
}
"""Ways to fail, each of which the block layer has an errno for.

None without sense data: what is injected with a host byte (a failed transport) or another status (a reservation
conflict) is tried again for ever, within the kernel (Linux 6.12).
"""

_FAIL_COMMAND = 2
_ALWAYS = 1


class ScsiDebug(ZonedBlockDevice):
    """The one scsi_debug that there can be."""

    def __init__(self, geometry: Geometry) -> None:
        settings = {
            "zbc": "managed",
            "dev_size_mb": geometry.size // MIB,
            "sector_size": geometry.block,
            "zone_size_mb": geometry.zone_size // MIB,
            "zone_nr_conv": geometry.nr_conventional,
            "zone_max_open": geometry.max_open,
            "delay": 0,
        }
        super().__init__(devices.add("scsi_debug", {key: str(value) for key, value in settings.items()}), geometry)
        self._scsi = Path("/sys/block", self.name, "device").resolve()
        self._rules = Path("/sys/kernel/debug/scsi_debug", self._scsi.name, "error")
        self._failing: list[int] = []

    def let_fail(self, how: str) -> None:
        """Let commands fail until further notice: ``write medium``, or several with ``;`` between. Empty: none.

        ``offline``: the kernel sends the disk no more commands.
        """
        for command in self._failing:
            self._rules.write_text(f"- {_FAIL_COMMAND} {command:#x}")
        self._failing.clear()
        (self._scsi / "state").write_text("offline\n" if how == "offline" else "running\n")
        if how in ("", "offline"):
            return
        for one in how.split("; "):
            word, result = one.split()
            command = _COMMANDS[word]
            self._failing.append(command)
            self._rules.write_text(f"{_FAIL_COMMAND} {_ALWAYS} {command:x} {_RESULTS[result]}")

    def remove(self) -> None:
        devices.remove(self.path)
