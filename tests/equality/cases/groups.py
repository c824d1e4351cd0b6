"""The groups of cases: each has a device and a mount of its own. Cases put themselves into them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.equality import geometry as shapes
from tests.equality.calls import Calls, File
from tests.equality.subjects import POLICIES

Case = Callable[[Calls], None]


@dataclass
class Group:
    """Cases that share one device, of the kind ``device``, and one mount."""

    geometry: str
    options: str = ""
    features: int = 0
    uid: int = 0
    gid: int = 0
    perm: int = 0
    mounted: bool = True
    write_errors: tuple[int, ...] = ()
    read_errors: tuple[int, ...] = ()
    flaky: bool = False
    device: str = "null_blk"
    cases: list[Case] = field(default_factory=list)


GROUPS: dict[str, Group] = {
    "plain": Group("plain"),
    "sectors": Group("sectors"),
    "aggregated": Group("plain", features=shapes.AGGR_CNV),
    "aggregated-sectors": Group("sectors", features=shapes.AGGR_CNV),
    "owned": Group("small", features=shapes.UID | shapes.GID | shapes.PERM, uid=1000, gid=1001, perm=0o604),
    "odd": Group("odd"),
    "sequential": Group("sequential"),
    "limits": Group("limits"),
    "explicit-open": Group("limits", "explicit-open"),
    "active": Group("active", "explicit-open"),
    "unlimited-explicit-open": Group("small", "explicit-open"),
    "mounts": Group("small", mounted=False),
    **{
        f"errors-{policy}": Group("many", f"errors={policy}", write_errors=(2, 20, 21), read_errors=(3, 22, 23))
        for policy in POLICIES
    },
    **{f"limits-{policy}": Group("limits", f"errors={policy}") for policy in POLICIES},
    **{f"flaky-{policy}": Group("many", f"errors={policy}", flaky=True) for policy in POLICIES},
}
"""What is recorded: on null_blk."""

LIVE_GROUPS: dict[str, Group] = {
    "scsi": Group("scsi", device="scsi_debug"),
    "scsi-sectors": Group("scsi-sectors", device="scsi_debug"),
    "scsi-aggregated": Group("scsi", features=shapes.AGGR_CNV, device="scsi_debug"),
    "scsi-explicit-open": Group("scsi", "explicit-open", device="scsi_debug"),
    "scsi-closing": Group("scsi", "explicit-open", device="scsi_debug"),
    "scsi-mounts": Group("scsi-many", mounted=False, device="scsi_debug"),
    **{f"scsi-{policy}": Group("scsi-many", f"errors={policy}", device="scsi_debug") for policy in POLICIES},
    "zns": Group("zns", device="zns"),
    "zns-explicit-open": Group("zns", "explicit-open", device="zns"),
    **{f"zns-{policy}": Group("zns", f"errors={policy}", device="zns") for policy in POLICIES},
    **{f"zns-limits-{policy}": Group("zns", f"errors={policy}", device="zns") for policy in POLICIES},
}
"""What is not recorded: the kernel's zonefs and ours run one after the other, on the same device."""

ALL_SHAPES = ("plain", "sectors", "aggregated", "aggregated-sectors", "owned", "odd", "sequential", "limits")
BOTH = ("plain", "sectors")
ERRORS = tuple(f"errors-{policy}" for policy in POLICIES)
FLAKY = tuple(f"flaky-{policy}" for policy in POLICIES)
LIVE = ("scsi", "scsi-sectors", "zns")
LIVE_EXPLICIT_OPEN = ("scsi-explicit-open", "zns-explicit-open")
LIVE_LIMITS = ("scsi", "zns", *LIVE_EXPLICIT_OPEN)
SCSI_ERRORS = tuple(f"scsi-{policy}" for policy in POLICIES)
ZNS_ERRORS = tuple(f"zns-{policy}" for policy in POLICIES)
ZNS_LIMITS = tuple(f"zns-limits-{policy}" for policy in POLICIES)


def case(*groups: str) -> Callable[[Case], Case]:
    """Put a case into *groups*."""

    def put(function: Case) -> Case:
        for group in groups:
            (GROUPS | LIVE_GROUPS)[group].cases.append(function)
        return function

    return put


# What several modules of cases need


def all_files(t: Calls) -> list[str]:
    """The paths of all files, as listed."""
    names = []
    for directory in ("cnv", "seq"):
        with contextlib.suppress(FileNotFoundError):
            names += [f"{directory}/{name}" for name in os.listdir(t.path(directory))]
    return names


def mode_of(t: Calls, name: str) -> str:
    """The mode, without following links."""
    return f"{os.lstat(t.path(name)).st_mode:o}"


def statvfs(t: Calls) -> list[int]:
    """The space accounting, without identity and flags."""
    answer = os.statvfs(t.path(""))
    return [
        answer.f_bsize,
        answer.f_frsize,
        answer.f_blocks,
        answer.f_bfree,
        answer.f_bavail,
        answer.f_files,
        answer.f_ffree,
        answer.f_namemax,
    ]


def open_and_close(path: str, flags: int) -> None:
    """open(2), close(2)."""
    os.close(os.open(path, flags, 0o644))


def spare(t: Calls) -> str:
    """A file that no case breaks."""
    return f"seq/{min(30, t.geometry.nr_seq_files - 1)}"


def recover(t: Calls) -> None:
    """Go on with a file system that may have become read-only."""
    t.writable(spare(t))
    t.close_all()
    t.remount("", read_only=False)
    t.writable(spare(t))


def use_broken(t: Calls, name: str, file: File | None = None, *, read: bool = True) -> None:
    """What still works on a file whose zone broke, with a descriptor that was open before and with new ones."""
    b = t.block
    if file is not None:
        t.pwrite(file, t.size(name), b)
        if read:
            t.pread(file, 0, b)
        t.fsync(file)
        t.ftruncate(file, 0)
    for flags in ("RDONLY", "RDWR|DIRECT", "RDONLY|TRUNC"):
        again = t.open(name, flags)
        if flags == "RDONLY":
            if read:
                t.pread(again, 0, b)
            t.fsync(again)
        t.close(again)
    t.on(name, "chmod", 0o600)
    t.on(name, "chown", 1, 1)
    t.on(name, "utime", (1, 1))
    t.truncate(name, 0)
    t.truncate(name, t.geometry.capacity)
    t.line(call="state", args=[name], ret=t.state(name))
