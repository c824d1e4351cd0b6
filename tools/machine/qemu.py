"""What QEMU is started with: its command line, the initramfs, the files of ZNS devices."""

from __future__ import annotations

import hashlib
import lzma
import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.machine import initramfs
from tools.machine.errors import VmError
from tools.machine.packages import Kernel, Programs
from tools.machine.protocol import PORT_NAME
from tools.machine.specs import DeviceSpec

GUEST = Path(__file__).resolve().parent / "guest"
# What the init needs before it sees the host's files; QEMU's own bus and console are built into the kernel.
EARLY_MODULES = ("9pnet_virtio", "9p", "overlay", "configfs")

# When one processor changes code that another one runs, QEMU may go on with the old code: what was translated is thrown
# away before the change is stored, and can be translated anew in between. The kernel changes itself in that way, mostly
# while it starts ("Oops: int3", about one start in twelve on a busy host): so it starts with one processor, and the
# init adds the others. A time stamp counter that is found unstable, which a busy host makes it look, would be such a
# change later. The timer check, whose failure is a panic, and the calibration of delays fail on a busy host too. The
# rest is speed, but for multipath: newer QEMUs share namespaces, and the kernel would make devices of them that tell no
# limits and refuse writes after a refused one.
KERNEL_COMMAND_LINE = (
    "console=ttyS0 loglevel=5 panic=-1 oops=panic maxcpus=1 noreplace-smp tsc=reliable no_timer_check lpj=10000000 "
    "nowatchdog mitigations=off nokaslr audit=0 random.trust_cpu=on lsm=capability init_on_alloc=0 "
    "hardened_usercopy=off psi=0 numa_balancing=disable preempt=none rcupdate.rcu_expedited=1 nvme_core.multipath=N"
)

ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.perturb=255:glibc.malloc.tcache_count=0"}
"""What QEMU needs in its environment: memory that malloc(3) gives it is zero (the tunables of glibc). QEMU 10 counts
each Copy command that it refuses with a cookie (in hw/nvme/ctrl.c) that nobody has filled in. What happened to be there
made it abort now and then; a cookie of zeros counts nothing."""


@dataclass(frozen=True)
class Guest:
    """What the machine's init must know, besides the kernel."""

    python: str
    shares: Sequence[Path]


def base_initramfs(cache: Path, kernel: Kernel, programs: Programs) -> bytes:
    """The part of the initramfs that depends on the kernel and busybox only; kept in *cache* by its content."""
    busybox, init = programs.busybox.read_bytes(), (GUEST / "init").read_bytes()
    files = _module_files(kernel, programs)
    key = hashlib.sha256(kernel.release.encode())
    for part in (busybox, init, Path(initramfs.__file__).read_bytes(), *(os.fsencode(file) for file in files)):
        key.update(hashlib.sha256(part).digest())
    path = cache / "initramfs" / f"{key.hexdigest()[:32]}.cpio"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    data = initramfs.archive(
        [
            initramfs.directory("bin"),
            initramfs.regular("bin/busybox", busybox, 0o755),
            initramfs.regular("init", init, 0o755),
            initramfs.directory("modules"),
            *(initramfs.regular(f"modules/{_module_name(file)}", _module(file)) for file in files),
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob("*.cpio"):
        old.unlink(missing_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(data)
    temporary.rename(path)
    return data


def configuration(kernel: Kernel, programs: Programs, guest: Guest) -> bytes:
    """The part of the initramfs that belongs to one machine: /machine.conf, sourced by the init."""
    values = {
        "modules": " ".join(_module_name(file) for file in _module_files(kernel, programs)),
        "modules_dir": str(kernel.modules.resolve()),
        "modprobe": str(programs.modprobe),
        "source": str(GUEST.parent.parent.parent),
        "python": guest.python,
        "shares": "\n".join(f"{share_tag(number)}={share}" for number, share in enumerate(guest.shares)),
    }
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    return initramfs.archive([initramfs.regular("machine.conf", text.encode())])


def share_tag(number: int) -> str:
    """The 9p tag of the share with this number."""
    return f"machine-share-{number}"


def _module_files(kernel: Kernel, programs: Programs) -> list[str]:
    """The files of the early modules and what they need, in the order of loading."""
    files: list[str] = []
    for module in EARLY_MODULES:
        argv = [str(programs.modprobe), "-d", str(kernel.root), "-S", kernel.release, "--show-depends", module]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            raise VmError(f"the kernel in {kernel.root} has no module {module}: {done.stderr.strip()}")
        for line in done.stdout.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "insmod" and rest.strip() not in files:
                files.append(rest.strip())
    return files


def _module_name(file: str) -> str:
    return Path(file).name.partition(".")[0] + ".ko"


def _module(file: str) -> bytes:
    data = Path(file).read_bytes()
    if file.endswith(".xz"):
        return lzma.decompress(data)
    if not file.endswith(".ko"):
        raise VmError(f"{file} is compressed in a way that tools/vm does not know")
    return data


def _escape(path: Path | str) -> str:
    """A path as a value in a QEMU option: commas are doubled."""
    return str(path).replace(",", ",,")


def zns_arguments(devices: Sequence[DeviceSpec], directory: Path) -> list[str]:
    """Options for the ZNS devices among *devices*, whose files are made in *directory*."""
    arguments: list[str] = []
    for number, spec in enumerate(devices):
        if spec.kind != "zns":
            continue
        file = directory / f"zns{number}"
        with open(file, "wb") as backing:
            backing.truncate(spec.number("size"))
        settings = dict(spec.settings)
        del settings["size"]
        controller = {"id": f"nvme{number}", "serial": zns_serial(number)}
        namespace = {"drive": f"zns{number}", "bus": f"nvme{number}", "nsid": "1", "zoned": "true"}
        for key, value in settings.items():
            if key in ("mdts", "vsl"):
                controller[key] = value
            elif key == "zasl":
                controller["zoned.zasl"] = value
            elif key == "cross_read":
                namespace["zoned.cross_read"] = "on" if value == "1" else "off"
            elif key in ("zone_size", "zone_capacity", "max_open", "max_active", "descr_ext_size"):
                namespace[f"zoned.{key}"] = value
            else:
                namespace[key] = value
        arguments += [
            *("-drive", f"file={_escape(file)},format=raw,if=none,id=zns{number},cache=unsafe"),
            *("-device", ",".join(["nvme", *(f"{key}={value}" for key, value in controller.items())])),
            *("-device", ",".join(["nvme-ns", *(f"{key}={value}" for key, value in namespace.items())])),
        ]
    return arguments


def zns_serial(number: int) -> str:
    """The serial number by which the agent finds the ZNS device with this number."""
    return f"zonefs-py-{number}"


def command_line(
    kernel: Kernel,
    programs: Programs,
    *,
    initrd: Path,
    log: Path,
    port: int,
    memory_mib: int,
    accelerator: str,
    shares: Sequence[Path],
    devices: Sequence[str],
) -> list[str]:
    """QEMU's arguments. *port* is the descriptor of a connected socket that becomes the agent's port."""
    arguments = [str(programs.qemu)]
    for directory in programs.firmware:
        arguments += ["-L", str(directory)]
    acceleration = "kvm" if accelerator == "kvm" else "tcg,thread=multi"
    arguments += ["-accel", acceleration, "-cpu", "max", "-smp", "2", "-m", str(memory_mib)]
    arguments += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"]
    arguments += ["-kernel", str(kernel.image), "-initrd", str(initrd), "-append", KERNEL_COMMAND_LINE]
    arguments += ["-serial", f"file:{_escape(log)}"]
    arguments += ["-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={port}"]
    arguments += ["-device", f"virtserialport,chardev=agent,name={PORT_NAME}"]
    root = "local,path=/,mount_tag=machine-root,security_model=passthrough,readonly=on,multidevs=remap"
    arguments += ["-virtfs", root]
    for number, share in enumerate(shares):
        # "none": the files belong to whoever runs QEMU, and a plain user may not give them away.
        options = f"local,path={_escape(share)},mount_tag={share_tag(number)},security_model=none,multidevs=remap"
        arguments += ["-virtfs", options]
    return [*arguments, *devices]
