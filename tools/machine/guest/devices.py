# SPDX-License-Identifier: MIT
"""Make and remove block devices inside the machine, by configfs and module parameters."""

from __future__ import annotations

import glob
import os
import subprocess
import time

NULL_BLK = "/sys/kernel/config/nullb"
NVMET = "/sys/kernel/config/nvmet"
LONGEST_WAIT = 30.0


class DeviceError(Exception):
    """A device could not be made or removed: one line."""


# path -> (kind, name in configfs)
_made: dict[str, tuple[str, str]] = {}
_next = {"null_blk": 0, "nvmet": 0}


def add(kind: str, settings: dict[str, str]) -> str:
    """Make a device and return its path."""
    if kind == "null_blk":
        path, name = _add_null_blk(settings)
    elif kind == "nvmet":
        path, name = _add_nvmet(settings)
    elif kind == "scsi_debug":
        path, name = _add_scsi_debug(settings)
    elif kind == "zns":
        path, name = _find_zns(settings["serial"])
    else:
        raise DeviceError(f"there is no kind of device {kind}")
    _made[path] = (kind, name)
    return path


def remove(path: str) -> None:
    """Remove a device that :func:`add` made."""
    if path not in _made:
        raise DeviceError(f"{path} was not made by this machine; made were: {' '.join(_made) or 'none'}")
    kind, name = _made[path]
    if kind == "zns":
        raise DeviceError(f"{path} belongs to the machine itself and goes with it")
    if kind == "scsi_debug":
        _program("modprobe", "-r", "scsi_debug")
    elif kind == "nvmet":
        _remove_nvmet(name)
    else:
        _remove_null_blk(name)
    del _made[path]


def _program(*argv: str) -> None:
    if argv[0] == "modprobe":
        with open("/proc/sys/kernel/modprobe") as modprobe:
            argv = (modprobe.read().strip(), *argv[1:])
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise DeviceError((done.stderr or done.stdout).strip().replace("\n", "; ") or f"{argv} failed")


def _write(path: str, value: str) -> None:
    try:
        with open(path, "w") as attribute:
            attribute.write(value)
    except OSError as exc:
        raise DeviceError(f"the kernel refused {os.path.basename(path)}={value}: {exc.strerror}") from exc


def _read(path: str) -> str:
    with open(path) as attribute:
        return attribute.read().strip()


def _wait(what: str, pattern: str) -> str:
    """The first path that matches *pattern*, once there is one."""
    deadline = time.monotonic() + LONGEST_WAIT
    while not (found := sorted(glob.glob(pattern))):
        if time.monotonic() > deadline:
            raise DeviceError(f"{what} did not appear ({pattern})")
        time.sleep(0.01)
    return found[0]


def _add_null_blk(settings: dict[str, str]) -> tuple[str, str]:
    if not os.path.isdir(NULL_BLK):
        _program("modprobe", "null_blk", "nr_devices=0")
    name = f"nullb{_next['null_blk']}"
    _next["null_blk"] += 1
    directory = f"{NULL_BLK}/{name}"
    os.mkdir(directory)
    try:
        # The list of bad blocks is accepted only by a device that knows its size.
        for key in sorted(settings, key=lambda key: key == "badblocks"):
            _write(f"{directory}/{key}", settings[key])
        _write(f"{directory}/power", "1")
    except DeviceError:
        os.rmdir(directory)
        raise
    return _wait("null_blk", f"/dev/{name}"), name


def _remove_null_blk(name: str) -> None:
    _write(f"{NULL_BLK}/{name}/power", "0")
    os.rmdir(f"{NULL_BLK}/{name}")


def _add_scsi_debug(settings: dict[str, str]) -> tuple[str, str]:
    if os.path.isdir("/sys/module/scsi_debug"):
        raise DeviceError("there is a scsi_debug already; remove it first")
    _program("modprobe", "sd_mod")
    _program("modprobe", "scsi_debug", *(f"{key}={value}" for key, value in settings.items()))
    pattern = "/sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*:0/block/*"
    return "/dev/" + os.path.basename(_wait("scsi_debug", pattern)), "scsi_debug"


def _find_zns(serial: str) -> tuple[str, str]:
    _program("modprobe", "nvme")
    for _ in range(2):
        for controller in glob.glob("/sys/class/nvme/nvme*"):
            if _read(f"{controller}/serial") == serial:
                return _namespace(controller), serial
        _wait("the NVMe controller", "/sys/class/nvme/nvme*")
    raise DeviceError(f"there is no NVMe controller {serial}")


def _namespace(controller: str) -> str:
    """The block device of a controller's namespace: with multipath its directory lies under the subsystem."""
    number = os.path.basename(controller).removeprefix("nvme")
    entry = _wait("the NVMe namespace", f"{controller}/nvme{number}*n1")
    instance = os.path.basename(entry)
    if not os.path.exists(f"/dev/{instance}"):
        head = _read(f"{controller}/subsysnqn")
        for subsystem in glob.glob("/sys/class/nvme-subsystem/nvme-subsys*"):
            if _read(f"{subsystem}/subsysnqn") == head:
                number = os.path.basename(subsystem).removeprefix("nvme-subsys")
        instance = f"nvme{number}n1"
    return _wait("the NVMe namespace", f"/dev/{instance}")


def _add_nvmet(settings: dict[str, str]) -> tuple[str, str]:
    backing, backing_name = _add_null_blk(settings)
    number = _next["nvmet"]
    _next["nvmet"] += 1
    name = f"zonefs-py-{number}"
    for module in ("nvmet", "nvme-loop"):
        _program("modprobe", module)
    subsystem = f"{NVMET}/subsystems/{name}"
    os.mkdir(subsystem)
    _write(f"{subsystem}/attr_allow_any_host", "1")
    os.mkdir(f"{subsystem}/namespaces/1")
    _write(f"{subsystem}/namespaces/1/device_path", backing)
    _write(f"{subsystem}/namespaces/1/enable", "1")
    port = f"{NVMET}/ports/{number + 1}"
    os.mkdir(port)
    _write(f"{port}/addr_trtype", "loop")
    os.symlink(subsystem, f"{port}/subsystems/{name}")
    before = set(glob.glob("/sys/class/nvme/nvme*"))
    _write("/dev/nvme-fabrics", f"transport=loop,nqn={name}")
    (controller,) = set(glob.glob("/sys/class/nvme/nvme*")) - before
    return _namespace(controller), f"{name} {backing_name} {os.path.basename(controller)}"


def _remove_nvmet(name: str) -> None:
    target, backing, controller = name.split()
    _write(f"/sys/class/nvme/{controller}/delete_controller", "1")
    port = f"{NVMET}/ports/{int(target.rpartition('-')[2]) + 1}"
    os.unlink(f"{port}/subsystems/{target}")
    os.rmdir(port)
    _write(f"{NVMET}/subsystems/{target}/namespaces/1/enable", "0")
    os.rmdir(f"{NVMET}/subsystems/{target}/namespaces/1")
    os.rmdir(f"{NVMET}/subsystems/{target}")
    _remove_null_blk(backing)
