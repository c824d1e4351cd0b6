"""Which scripts of tests/scripts run on which block devices in the machine, and which of them skip there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"

SCRIPT_ZNS = "zns:zones=16,zone_size=4M,zone_capacity=3M,max_open=4,max_active=6"

WITHOUT = {
    "a conventional file": "0043,0046,0070-0071,0200-0214,0400,0638,0702",
    "a sequential zone 0": "0008",
    "a conventional zone 0": "0002,0021-0023",
    "a smaller last zone": "0074",
    "limits on open and active zones": "0503-0510,0521-0525",
    "freedom from such limits": "0520",
    "zones that can be made to fail": "0617-0624,0630-0633,0637",
    "the files of an emulated device": "0036-0037,0039,0613-0616,0638,0640",
}
"""What a device may lack, and the scripts that say so and skip there."""


def numbers(text: str) -> list[str]:
    """The numbers of the scripts that there are among ``0300,0310-0320``."""
    found: list[str] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += [f"{number:04}" for number in range(int(first), int(last or first) + 1)]
    return [number for number in found if (SCRIPTS / f"{number}.sh").exists()]


@dataclass(frozen=True)
class Suite:
    """Scripts on a block device. *chosen* ones are wanted on this one; *lacks* are keys of `WITHOUT`."""

    device: str
    chosen: str
    lacks: frozenset[str]

    @property
    def skipped(self) -> frozenset[str]:
        """All that skip on this device."""
        return frozenset(number for what in self.lacks for number in numbers(WITHOUT[what]))


def every_script() -> list[str]:
    """The numbers of all scripts."""
    return sorted(path.stem for path in SCRIPTS.glob("[0-9][0-9][0-9][0-9].sh"))


def same_everywhere() -> set[str]:
    """The numbers of those that test nothing that depends on the device, which need one only."""
    return {
        number for number in every_script() if "# geometry: any" in (SCRIPTS / f"{number}.sh").read_text().splitlines()
    }


SUITES = {
    "null_blk": Suite(
        "null_blk:zone_size=4M,zones=16,zone_nr_conv=4,blocksize=4096",
        "0009,0011,0025,0031,0033,0034,0035,0113,0205,0305,0322,0331,0600,0604,0617,0621,0700",
        frozenset(
            {
                "a sequential zone 0",
                "a smaller last zone",
                "limits on open and active zones",
                "the files of an emulated device",
            }
        ),
    ),
    "null_blk with limits": Suite(
        "null_blk:zone_size=4M,zone_capacity=3M,zones=16,blocksize=512,zone_max_open=4,zone_max_active=6",
        "0008,0303,0337,0503,0504,0505,0521",
        frozenset(
            {
                "a conventional file",
                "a conventional zone 0",
                "a smaller last zone",
                "freedom from such limits",
                "the files of an emulated device",
            }
        ),
    ),
    "scsi_debug": Suite(
        "scsi_debug:zone_size_mb=4,dev_size_mb=64,zone_nr_conv=4,sector_size=4096,zone_max_open=4,delay=0",
        "0205,0300,0331,0601",
        frozenset(
            {
                "a sequential zone 0",
                "a smaller last zone",
                # SCSI disks have none on active zones.
                "limits on open and active zones",
                "freedom from such limits",
                "zones that can be made to fail",
                "the files of an emulated device",
            }
        ),
    ),
    "zns": Suite(
        SCRIPT_ZNS,
        "0008,0303,0322,0336,0505",
        frozenset(
            {
                "a conventional file",
                "a conventional zone 0",
                "a smaller last zone",
                "freedom from such limits",
                "zones that can be made to fail",
                "the files of an emulated device",
            }
        ),
    ),
}


def everything() -> dict[str, list[str]]:
    """All scripts on all devices, but those that are the same on every one on the first only."""
    first, *_ = SUITES
    anywhere = same_everywhere()
    return {name: [number for number in every_script() if name == first or number not in anywhere] for name in SUITES}


def each_once() -> dict[str, list[str]]:
    """Each script on a device that has what it needs, and wherever it was chosen; some need what none of them has."""
    chosen = {name: set(numbers(suite.chosen)) for name, suite in SUITES.items()}
    for number in every_script():
        able = [name for name, suite in SUITES.items() if number not in suite.skipped]
        if able and not any(number in scripts for scripts in chosen.values()):
            chosen[min(able, key=lambda name: len(chosen[name]))].add(number)
    return {name: sorted(scripts) for name, scripts in chosen.items()}
