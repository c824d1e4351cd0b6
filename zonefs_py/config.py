"""Options: text to frozen dataclasses and back, one row an option, so that parsing and printing cannot drift."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from zonefs_py.errors import OptionError

FILESYSTEM_SUBTYPE = "zonefs-py"
FILESYSTEM_TYPE = f"fuse.{FILESYSTEM_SUBTYPE}"
"""What our mounts are in /proc/mounts and to mount(8)."""


class ErrorsPolicy(Enum):
    """``errors=``: what an I/O error on a sequential file leads to (Documentation/filesystems/zonefs.rst)."""

    REMOUNT_RO = "remount-ro"
    ZONE_RO = "zone-ro"
    ZONE_OFFLINE = "zone-offline"
    REPAIR = "repair"


COPY_CHOICES = ("auto", "device", "reflink", "host", "emulate")
PASSTHROUGH_CHOICES = ("auto", "on", "off")
MAX_ID = 0xFFFFFFFE
"""The highest uid or gid: 0xffffffff is (uid_t)-1, which the kernel refuses in a superblock ("Invalid UID feature")."""
MAX_PERMISSIONS = 0o777


@dataclass(frozen=True)
class MountOptions:
    """What zonefs itself is told at mount time; the same options as kernel zonefs, and ``read_only``.

    Raises ValueError for a value that a field cannot have.
    """

    errors: ErrorsPolicy = ErrorsPolicy.REMOUNT_RO
    explicit_open: bool = False
    read_only: bool = False
    copy: str = "auto"
    """How copies are made: ``auto`` or one of `COPY_CHOICES`; what the device cannot do is emulated."""

    def __post_init__(self) -> None:
        _check(self, "errors", ErrorsPolicy, list(ErrorsPolicy), f"one of {', '.join(map(str, ErrorsPolicy))}")
        _check(self, "explicit_open", bool, (True, False), "True or False")
        _check(self, "read_only", bool, (True, False), "True or False")
        _check(self, "copy", str, COPY_CHOICES, f"one of {', '.join(COPY_CHOICES)}")


@dataclass(frozen=True)
class FuseOptions:
    """What the FUSE mount is told; ``kernel_flags`` go to mount(2) as they are (nosuid, noexec, ...)."""

    allow_other: bool | None = None
    """None: as the kernel's own file systems are, that is open to everybody, if root mounts."""
    allow_root: bool = False
    explain: bool = False
    """Whether every refusal is logged, with its rule."""
    kernel_flags: frozenset[str] = frozenset()
    passthrough: str = "auto"
    """Whether the kernel may read zone files past us: one of `PASSTHROUGH_CHOICES`; ``on`` refuses to mount if not."""


@dataclass(frozen=True)
class MountRequest:
    """Everything that can be said after ``-o``."""

    filesystem: MountOptions = field(default_factory=MountOptions)
    fuse: FuseOptions = field(default_factory=FuseOptions)
    log_file: str | None = None
    remount: bool = False


@dataclass(frozen=True)
class FormatOptions:
    """What mkfs writes into the superblock. None: leave the feature out (owner root:root, mode 0640).

    ``uid`` and ``gid`` are 0 to `MAX_ID`, ``permissions`` 0 to `MAX_PERMISSIONS`; ``label`` has 63 bytes at most, which
    the formatting checks. Raises ValueError for another value.
    """

    aggregate_conventional: bool = False
    uid: int | None = None
    gid: int | None = None
    permissions: int | None = None
    label: str = ""

    def __post_init__(self) -> None:
        _check(self, "aggregate_conventional", bool, (True, False), "True or False")
        for name in ("uid", "gid"):
            _check_number(self, name, MAX_ID, f"None or a number from 0 to {MAX_ID}")
        _check_number(self, "permissions", MAX_PERMISSIONS, f"None or a number from 0 to {MAX_PERMISSIONS:#o}")
        _check(self, "label", str, (self.label,), "text")


def _check(options: object, name: str, kind: type, allowed: Container[object], said: str) -> None:
    """Raise ValueError if the field *name* of *options* is not a *kind* that is *allowed*, in words *said*."""
    value: object = getattr(options, name)
    # The very type: 1 equals True, and does not print as it does.
    if type(value) is not kind or value not in allowed:
        raise ValueError(f"{type(options).__name__}: {name} is {value!r}; it must be {said}")


def _check_number(options: object, name: str, last: int, said: str) -> None:
    if getattr(options, name) is not None:
        _check(options, name, int, range(last + 1), said)


_KERNEL_FLAGS = (
    "suid nosuid dev nodev exec noexec atime noatime diratime nodiratime relatime norelatime strictatime"
    " nostrictatime sync async dirsync"
).split()
"""Flags of mount(8) that the kernel enforces for a FUSE mount without our help."""

_FSTAB_ONLY = frozenset(
    "defaults auto noauto user nouser users nousers owner group nofail _netdev rw silent loud".split()
)
"""Words that mount(8) leaves in the option string for its own use; they ask nothing of a file system."""

_KERNEL_SHOWN = ("user_id", "group_id", "rootmode", "fd", "max_read", "blksize", "fsname", "subtype")
"""What /proc/mounts shows of every FUSE mount, so that mount(8) passes it back on a remount."""


def _split(text: str) -> Iterable[tuple[str, str | None]]:
    for word in text.split(","):
        if word:
            name, equals, value = word.partition("=")
            yield name, value if equals else None


def _without_value(name: str, value: str | None) -> None:
    if value is not None:
        raise OptionError(f"mount option {name!r} takes no value, but {name}={value} was given")


def _errors(request: MountRequest, value: str | None) -> MountRequest:
    try:
        policy = ErrorsPolicy(value)
    except ValueError:
        choices = ", ".join(policy.value for policy in ErrorsPolicy)
        raise OptionError(f"mount option errors={value or ''}: choose one of {choices}") from None
    return replace(request, filesystem=replace(request.filesystem, errors=policy))


def _filesystem_flag(option: str, attribute: str, wanted: bool) -> Callable[[MountRequest, str | None], MountRequest]:
    def apply(request: MountRequest, value: str | None) -> MountRequest:
        _without_value(option, value)
        changes: dict[str, Any] = {attribute: wanted}
        return replace(request, filesystem=replace(request.filesystem, **changes))

    return apply


def _fuse_flag(option: str, attribute: str, wanted: bool) -> Callable[[MountRequest, str | None], MountRequest]:
    def apply(request: MountRequest, value: str | None) -> MountRequest:
        _without_value(option, value)
        changes: dict[str, Any] = {attribute: wanted}
        return replace(request, fuse=replace(request.fuse, **changes))

    return apply


def _copy(request: MountRequest, value: str | None) -> MountRequest:
    if value not in COPY_CHOICES:
        raise OptionError(f"mount option copy={value or ''}: choose one of {', '.join(COPY_CHOICES)}")
    return replace(request, filesystem=replace(request.filesystem, copy=value))


def _passthrough(request: MountRequest, value: str | None) -> MountRequest:
    if value not in PASSTHROUGH_CHOICES:
        raise OptionError(f"mount option passthrough={value or ''}: choose one of {', '.join(PASSTHROUGH_CHOICES)}")
    return replace(request, fuse=replace(request.fuse, passthrough=value))


def _log(request: MountRequest, value: str | None) -> MountRequest:
    if not value:
        raise OptionError("mount option log: write log=FILE")
    return replace(request, log_file=value)


def _remount(request: MountRequest, value: str | None) -> MountRequest:
    _without_value("remount", value)
    return replace(request, remount=True)


@dataclass(frozen=True)
class _Row:
    """One option: how it changes a request, and how a request shows it."""

    name: str
    parse: Callable[[MountRequest, str | None], MountRequest]
    show: Callable[[MountRequest], str | None]


_ROWS = (
    _Row("ro", _filesystem_flag("ro", "read_only", True), lambda r: "ro" if r.filesystem.read_only else None),
    _Row("rw", _filesystem_flag("rw", "read_only", False), lambda r: None if r.filesystem.read_only else "rw"),
    _Row("errors", _errors, lambda r: f"errors={r.filesystem.errors.value}"),
    _Row(
        "explicit-open",
        _filesystem_flag("explicit-open", "explicit_open", True),
        lambda r: "explicit-open" if r.filesystem.explicit_open else None,
    ),
    _Row(
        "allow_other",
        _fuse_flag("allow_other", "allow_other", True),
        lambda r: "allow_other" if r.fuse.allow_other else None,
    ),
    _Row(
        "noallow_other",
        _fuse_flag("noallow_other", "allow_other", False),
        lambda r: "noallow_other" if r.fuse.allow_other is False else None,
    ),
    _Row(
        "allow_root",
        _fuse_flag("allow_root", "allow_root", True),
        lambda r: "allow_root" if r.fuse.allow_root else None,
    ),
    _Row("explain", _fuse_flag("explain", "explain", True), lambda r: "explain" if r.fuse.explain else None),
    _Row("copy", _copy, lambda r: f"copy={r.filesystem.copy}" if r.filesystem.copy != "auto" else None),
    _Row(
        "passthrough",
        _passthrough,
        lambda r: f"passthrough={r.fuse.passthrough}" if r.fuse.passthrough != "auto" else None,
    ),
    _Row("log", _log, lambda r: f"log={r.log_file}" if r.log_file else None),
    _Row("remount", _remount, lambda r: "remount" if r.remount else None),
)
_BY_NAME = {row.name: row for row in _ROWS}


def parse_mount_options(text: str, base: MountRequest | None = None) -> MountRequest:
    """Return *base* (the defaults, if None) changed by the comma-separated options in *text*.

    As in kernel zonefs the last of several wins and stray commas are harmless. Raises OptionError that names
    the first option it does not know, or whose value is wrong.
    """
    request = base or MountRequest()
    words = list(_split(text))
    remount = request.remount or any(name == "remount" for name, _ in words)
    for name, value in words:
        if row := _BY_NAME.get(name):
            request = row.parse(request, value)
        elif name in _KERNEL_FLAGS:
            _without_value(name, value)
            flags = (request.fuse.kernel_flags - {_opposite(name)}) | {name}
            request = replace(request, fuse=replace(request.fuse, kernel_flags=flags))
        elif (
            name in _FSTAB_ONLY
            or name.startswith(("x-", "X-", "comment"))
            or (remount and (name in _KERNEL_SHOWN or name == "default_permissions"))
        ):
            continue
        else:
            known = ", ".join(sorted(_BY_NAME))
            raise OptionError(f"unknown mount option {name!r}; zonefs-py knows {known} and the flags of mount(8)")
    return request


def format_mount_options(request: MountRequest) -> str:
    """Return the option text of *request*; `parse_mount_options` reads it back to an equal request."""
    shown = [text for row in _ROWS if (text := row.show(request)) is not None]
    return ",".join(shown + sorted(request.fuse.kernel_flags))


def _opposite(flag: str) -> str:
    """The flag of mount(8) that says the contrary."""
    if flag in ("sync", "async"):
        return "async" if flag == "sync" else "sync"
    return flag.removeprefix("no") if flag.startswith("no") else f"no{flag}"


def _identity(name: str, value: str | None) -> int:
    if value is None or not value.isdecimal() or not value.isascii() or len(value) > 10 or int(value) > MAX_ID:
        raise OptionError(f"format option {name}={value or ''}: write a number from 0 to {MAX_ID}")
    return int(value)


def _permissions(value: str | None) -> int:
    if value is None or not value or set(value) - set("01234567") or int(value, 8) > MAX_PERMISSIONS:
        raise OptionError(f"format option perm={value or ''}: write an octal number from 0 to 777")
    return int(value, 8)


def parse_format_options(text: str, base: FormatOptions | None = None) -> FormatOptions:
    """Return *base* changed by mkfs's ``-o`` text: ``aggr_cnv``, ``uid=N``, ``gid=N``, ``perm=OCTAL``.

    Raises OptionError that names the first option it does not know, or whose value is wrong.
    """
    options = base or FormatOptions()
    for name, value in _split(text):
        if name == "aggr_cnv":
            if value is not None:
                raise OptionError(f"format option aggr_cnv takes no value, but aggr_cnv={value} was given")
            options = replace(options, aggregate_conventional=True)
        elif name == "uid":
            options = replace(options, uid=_identity(name, value))
        elif name == "gid":
            options = replace(options, gid=_identity(name, value))
        elif name == "perm":
            options = replace(options, permissions=_permissions(value))
        else:
            raise OptionError(f"unknown format option {name!r}; mkfs knows aggr_cnv, uid=N, gid=N, perm=OCTAL")
    return options
