"""``zonefs-py mount``: mount a device with FUSE, in the background unless told otherwise."""

from __future__ import annotations

import gc
import logging
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace

import click

from zonefs_py.cli.common import check_no_mount_point, complain
from zonefs_py.cli.daemon import LEVELS, run_in_background, set_up_logging
from zonefs_py.cli.parameters import PATH, mount_options_option
from zonefs_py.config import (
    FILESYSTEM_TYPE,
    ErrorsPolicy,
    MountOptions,
    MountRequest,
    format_mount_options,
    parse_mount_options,
)
from zonefs_py.control.client import ask
from zonefs_py.control.mounts import MountEntry, find_mount
from zonefs_py.control.socket_path import remove_dead_socket
from zonefs_py.device.stack import absolute_path, absolute_text
from zonefs_py.device.stack_spec import device_paths, parse_spec
from zonefs_py.errors import MountError, UserError, describe_os_error, is_disconnected

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MountCommand:
    """What to mount where and how; ``options`` is the text after ``-o``."""

    device: str
    mountpoint: str
    options: str
    log_file: str | None = None
    foreground: bool = False
    log_level: str = "info"


@click.command(short_help="Mount a device.")
@click.argument("device", type=PATH)
@click.argument("mountpoint", metavar="DIR", type=PATH)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground and log to stderr.")
@mount_options_option
@click.option("--log-file", type=PATH, help="Where the log goes; the journal, if there is one, by default.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
def mount(
    device: str, mountpoint: str, foreground: bool, options: tuple[str, ...], log_file: str | None, log_level: str
) -> int:
    """Mount DEVICE, formatted by mkfs, at the directory DIR.

    DEVICE is the path of a device, or the text of a stack of devices such as linear:a.zbd+b.zbd.

    \b
    Options after -o, as for kernel zonefs:
      errors=remount-ro|zone-ro|zone-offline|repair  what an I/O error does (remount-ro)
      explicit-open    open a zone on the device while its file is open for writing
      ro, rw           read-only or read-write (rw)
    and for FUSE:
      allow_other, noallow_other   other users may use the mount (root's: yes, others': no)
      passthrough=auto|on|off   the kernel serves reads from the zones' files itself: if it can, or must, or not
      explain          log every refusal, with its rule and what to do instead
      allow_root, log=FILE, nosuid, nodev, noexec and other flags of mount(8)
    """
    return run_mount(MountCommand(device, mountpoint, ",".join(options), log_file, foreground, log_level))


def run_mount(command: MountCommand) -> int:
    """Do what *command* says; return the exit status. Raises UserError and its like, with nothing mounted."""
    request = parse_mount_options(command.options)
    if request.remount:
        remount(command)
        return 0
    check_no_mount_point(command.device)
    log_file = command.log_file or request.log_file
    if log_file is not None:
        log_file = absolute_path(log_file)
        request = replace(request, log_file=log_file)
    command = replace(command, device=absolute_text(command.device), mountpoint=os.path.realpath(command.mountpoint))
    check_apart(command.device, command.mountpoint)
    prepare_mountpoint(command.mountpoint)
    check_fuse()
    if command.foreground:
        set_up_logging(log_file, command.log_level, foreground=True)
        return serve_mount(command, request, lambda: None)

    def work(say_ready: Callable[[], None]) -> int:
        set_up_logging(log_file, command.log_level, foreground=False)
        return serve_mount(command, request, say_ready)

    run_in_background(work)
    return 0


def serve_mount(command: MountCommand, request: MountRequest, say_ready: Callable[[], None]) -> int:
    """Mount and serve in this process until the end; return its exit status."""
    from zonefs_py.control import server
    from zonefs_py.fs.opening import open_filesystem
    from zonefs_py.fuse.door import libfuse_version
    from zonefs_py.fuse.serve import serve

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Nothing of what a mount is made of is ever garbage. The collector would look through all of it several times while
    # it grows, and again and again while it is in use, with every request waiting.
    gc.disable()
    filesystem = open_filesystem(command.device, request.filesystem, faults=True)
    gc.freeze()
    gc.enable()
    if request.fuse.explain:
        filesystem.refusals.log_each()
    control: list[server.ControlServer] = []

    def options() -> str:
        now = filesystem.options
        return format_mount_options(replace(request, filesystem=replace(now, read_only=filesystem.read_only)))

    def on_ready(no_passthrough: str | None) -> None:
        why = {} if no_passthrough is None else {"no_passthrough_because": no_passthrough}
        fuse = {
            "versions": {"libfuse": libfuse_version()},
            "capabilities": {"passthrough": no_passthrough is None, **why, "copy_file_range": True},
        }
        control.append(server.start(filesystem, command.mountpoint, options, fuse))
        log.info("%s: mounted at %s (%s)", command.device, command.mountpoint, options())
        say_ready()

    with filesystem:
        try:
            healthy = serve(filesystem, command.mountpoint, request.fuse, on_ready=on_ready)
        finally:
            for running in control:
                running.stop()
    log.info("%s: unmounted", command.mountpoint)
    return 0 if healthy else 1


def check_apart(device: str, mountpoint: str) -> None:
    """Raise MountError if *mountpoint*, an absolute path, is a directory of *device*, or below one.

    The mount would hide the device from all commands that are given its path.
    """
    for path in map(os.path.realpath, device_paths(parse_spec(device))):
        if os.path.commonpath([path, mountpoint]) == path:
            raise MountError(f"{mountpoint} is the device itself, or a part of it: mount it at another directory")


def prepare_mountpoint(mountpoint: str) -> None:
    """See that something can be mounted at *mountpoint*, an absolute path; clean up what a dead daemon left there.

    Raises MountError.
    """
    entry = find_mount(mountpoint)
    if entry is not None and entry.type == FILESYSTEM_TYPE:
        if not is_stale(mountpoint):
            raise MountError(f"{mountpoint} is busy: {entry.source} is mounted there")
        clean_up(entry)
        complain("zonefs-py", f"{mountpoint}: cleaned up after a daemon that had died")
    try:
        os.listdir(mountpoint)
    except FileNotFoundError:
        raise MountError(f"mount point {mountpoint} does not exist; make the directory first") from None
    except OSError as exc:
        raise MountError(f"mount point {describe_os_error(exc)}") from None


def is_stale(mountpoint: str) -> bool:
    """Whether the daemon of the mount at *mountpoint* is gone ("transport endpoint is not connected")."""
    try:
        # Not stat: the kernel may know the answer to that without the daemon.
        os.statvfs(mountpoint)
    except OSError as exc:
        return is_disconnected(exc)
    return False


def clean_up(entry: MountEntry) -> None:
    """Remove a stale mount, and what its daemon left. Raises MountError."""
    remove_dead_socket(entry)
    unmount(entry, lazy=True)


def unmount(entry: MountEntry, *, lazy: bool) -> None:
    """Unmount what *entry* says. Raises MountError, in the words of umount(8) or fusermount3(1)."""
    if os.geteuid() == 0:
        command = ["umount", "-i", *(["-l"] if lazy else []), "--", entry.mountpoint]
    else:
        command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", entry.mountpoint]
    try:
        _run(command)
    except MountError as exc:
        if lazy or "busy" not in str(exc):
            raise
        raise MountError(f"{str(exc).rstrip('.')}: who uses it must let go of it, or --lazy detaches it now") from None


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{command[0]} failed"]
        raise MountError(lines[0].removeprefix(f"{command[0]}: "))


def check_fuse() -> None:
    """Raise MountError, with what to do, where this user cannot mount with FUSE."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        raise MountError(
            f"{describe_os_error(exc)}; FUSE is needed to mount (modprobe fuse, or ask for the device)"
        ) from None
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MountError("fusermount3 is missing; on Debian: apt-get install fuse3")


def remount(command: MountCommand) -> None:
    """Change the options of a mount that are named after ``-o``; the others stay. Raises MountError, UserError."""
    entry = find_mount(command.mountpoint)
    if entry is None or entry.type != FILESYSTEM_TYPE:
        raise MountError(f"{command.mountpoint} is not a mount point of zonefs-py")
    if os.geteuid() != 0:
        raise UserError("only root can remount")
    _check_same_device(command, entry)
    named = parse_mount_options(command.options)
    _check_remount(named, entry)
    now = ask(command.mountpoint, {"request": "ping"})
    present = MountOptions(ErrorsPolicy(now["errors"]), now["explicit_open"], now["read_only"])
    wanted = parse_mount_options(command.options, MountRequest(present)).filesystem
    flags = ",".join(["", *sorted(named.fuse.kernel_flags)])
    change = {
        "request": "remount",
        "errors": wanted.errors.value,
        "explicit_open": wanted.explicit_open,
        "read_only": wanted.read_only,
    }
    if wanted.read_only:
        # The kernel first: it knows whether files are open for writing. They may be if an error made the file system
        # read-only; the kernel, whose own zonefs would then not mind them, has not been told of that.
        try:
            _run(["mount", "-i", "-o", f"remount,ro{flags}", "--", command.mountpoint])
        except MountError:
            if not now["read_only"]:
                raise
        ask(command.mountpoint, change)
    else:
        ask(command.mountpoint, change)
        _run(["mount", "-i", "-o", f"remount,rw{flags}", "--", command.mountpoint])


def _check_same_device(command: MountCommand, entry: MountEntry) -> None:
    """Refuse to remount another device than the one that is mounted, as far as both are paths."""
    try:
        same = os.path.samefile(command.device, entry.source)
    except (OSError, ValueError):
        return  # a stack, or what mount(8) shows of one
    if not same:
        raise UserError(f"{command.mountpoint} is a mount of {entry.source}, not of {command.device}")


def _check_remount(named: MountRequest, entry: MountEntry) -> None:
    """Refuse what only a new mount can change; mount(8) repeats options that hold already."""
    allow_other = named.fuse.allow_other
    if allow_other is not None and allow_other != ("allow_other" in entry.options):
        raise UserError("allow_other and noallow_other cannot be changed by a remount: unmount, and mount again")
    if named.fuse.allow_root or named.fuse.explain or named.log_file is not None:
        raise UserError("allow_root, explain and log cannot be changed by a remount: unmount, and mount again")
