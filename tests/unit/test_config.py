"""Mount and format options: text to dataclasses and back."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.config import (
    ErrorsPolicy,
    FormatOptions,
    FuseOptions,
    MountOptions,
    MountRequest,
    format_mount_options,
    parse_format_options,
    parse_mount_options,
)
from zonefs_py.errors import UserError

KERNEL_FLAGS = ["nosuid", "nodev", "noexec", "noatime", "relatime", "sync", "dirsync"]
FILE_NAME = st.text(st.characters(exclude_characters=",\0", exclude_categories=["Cs"]), min_size=1, max_size=20)

requests = st.builds(
    MountRequest,
    filesystem=st.builds(
        MountOptions, errors=st.sampled_from(ErrorsPolicy), explicit_open=st.booleans(), read_only=st.booleans()
    ),
    fuse=st.builds(
        FuseOptions,
        allow_other=st.sampled_from([None, True, False]),
        allow_root=st.booleans(),
        kernel_flags=st.frozensets(st.sampled_from(KERNEL_FLAGS)),
    ),
    log_file=st.none() | FILE_NAME,
    remount=st.booleans(),
)


def test_no_options_are_the_defaults_of_kernel_zonefs() -> None:
    request = parse_mount_options("")
    assert request == MountRequest()
    assert request.filesystem.errors is ErrorsPolicy.REMOUNT_RO
    assert not request.filesystem.explicit_open
    assert not request.filesystem.read_only


@pytest.mark.parametrize("policy", list(ErrorsPolicy))
def test_errors_policies(policy: ErrorsPolicy) -> None:
    assert parse_mount_options(f"errors={policy.value}").filesystem.errors is policy


@pytest.mark.parametrize(
    ("text", "filesystem"),
    [
        ("explicit-open", MountOptions(explicit_open=True)),
        ("ro", MountOptions(read_only=True)),
        ("ro,rw", MountOptions()),
        ("rw,ro", MountOptions(read_only=True)),
        ("errors=repair,errors=zone-ro", MountOptions(errors=ErrorsPolicy.ZONE_RO)),
        (",,errors=repair,,explicit-open,", MountOptions(errors=ErrorsPolicy.REPAIR, explicit_open=True)),
    ],
)
def test_the_last_one_wins_and_stray_commas_are_harmless(text: str, filesystem: MountOptions) -> None:
    assert parse_mount_options(text).filesystem == filesystem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("errors=foo", "errors=foo"),
        ("errors", "errors="),
        ("errors=", "errors="),
        ("explicit-open=1", "explicit-open"),
        ("noexplicit-open", "'noexplicit-open'"),
        ("uid=0", "'uid'"),
        (" ro", "' ro'"),
        ("ro=1", "ro=1"),
        ("nosuid=1", "nosuid=1"),
        ("allow_other=yes", "allow_other=yes"),
        ("remount=1", "remount=1"),
        ("log", "log=FILE"),
        ("log=", "log=FILE"),
        ("ro,bogus,errors=foo", "'bogus'"),
        ("fd=3", "'fd'"),
        ("subtype=zonefs-py", "'subtype'"),
    ],
)
def test_what_is_not_known_is_named(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_mount_options(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flags_of_the_kernel_are_collected() -> None:
    assert parse_mount_options("nosuid,noexec").fuse.kernel_flags == {"nosuid", "noexec"}


def test_words_of_fstab_ask_nothing_of_us() -> None:
    text = "defaults,auto,noauto,user,nofail,_netdev,x-systemd.automount,X-mount.mkdir,comment=hello"
    assert parse_mount_options(text) == MountRequest()


def test_a_remount_takes_back_what_proc_mounts_shows() -> None:
    text = "remount,rw,relatime,user_id=0,group_id=0,default_permissions,allow_other,max_read=1048576"
    request = parse_mount_options(text)
    assert request.remount
    assert request.fuse.allow_other


def test_where_the_word_remount_stands_makes_no_difference() -> None:
    words = ["remount", "ro", "user_id=0", "default_permissions", "fsname=/a/disk", "errors=repair"]
    expected = parse_mount_options(",".join(words))
    for order in itertools.permutations(words):
        assert parse_mount_options(",".join(order)) == expected
    with pytest.raises(UserError, match="fsname"):
        parse_mount_options("ro,fsname=/a/disk")


def test_options_are_added_to_a_base() -> None:
    base = parse_mount_options("errors=repair,nosuid")
    request = parse_mount_options("explicit-open,nodev", base)
    assert request.filesystem == MountOptions(errors=ErrorsPolicy.REPAIR, explicit_open=True)
    assert request.fuse.kernel_flags == {"nosuid", "nodev"}
    assert parse_mount_options("", base) == base


@given(requests)
def test_mount_options_round_trip(request: MountRequest) -> None:
    assert parse_mount_options(format_mount_options(request)) == request


@given(st.text(max_size=60))
def test_any_text_is_mount_options_or_a_user_error(text: str) -> None:
    try:
        request = parse_mount_options(text)
    except UserError:
        return
    assert parse_mount_options(format_mount_options(request)) == request


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", FormatOptions()),
        ("aggr_cnv", FormatOptions(aggregate_conventional=True)),
        ("uid=1000,gid=0", FormatOptions(uid=1000, gid=0)),
        ("perm=600", FormatOptions(permissions=0o600)),
        ("perm=0", FormatOptions(permissions=0)),
        ("perm=0777,,perm=0640", FormatOptions(permissions=0o640)),
        ("uid=4294967294", FormatOptions(uid=4294967294)),
    ],
)
def test_format_options(text: str, options: FormatOptions) -> None:
    assert parse_format_options(text) == options


@pytest.mark.parametrize(
    "text",
    [
        "aggr_cnv=1",
        "uid",
        "uid=",
        "uid=root",
        "uid=-1",
        "uid=4294967295",
        "uid=٣",
        "gid=1.5",
        "perm",
        "perm=",
        "perm=8",
        "perm=1777",
        "perm=-1",
        "perm=0o600",
        "label=x",
        " uid=1",
    ],
)
def test_wrong_format_options_are_named(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_format_options(text)
    assert text.partition("=")[0].strip() in str(caught.value)


def test_format_options_are_added_to_a_base() -> None:
    base = FormatOptions(label="x", uid=1)
    assert parse_format_options("gid=2", base) == FormatOptions(label="x", uid=1, gid=2)


@given(st.text(st.sampled_from("uidgperm_aggr_cnv=,0123456789"), max_size=40))
def test_any_text_is_format_options_or_a_user_error(text: str) -> None:
    try:
        options = parse_format_options(text)
    except UserError:
        return
    assert options.permissions is None or 0 <= options.permissions <= 0o777
    assert options.uid is None or 0 <= options.uid < 0xFFFFFFFF


@pytest.mark.parametrize("value", ["auto", "on", "off"])
def test_passthrough(value: str) -> None:
    request = parse_mount_options(f"passthrough={value}")
    assert request.fuse.passthrough == value
    assert parse_mount_options(format_mount_options(request)) == request


@pytest.mark.parametrize("text", ["passthrough", "passthrough=", "passthrough=yes"])
def test_passthrough_is_one_of_three(text: str) -> None:
    with pytest.raises(UserError, match="choose one of auto, on, off"):
        parse_mount_options(text)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (MountOptions, {"errors": "repair"}, "errors is 'repair'; it must be one of ErrorsPolicy.REMOUNT_RO, "),
        (MountOptions, {"errors": None}, "errors is None"),
        (MountOptions, {"explicit_open": "yes"}, "explicit_open is 'yes'; it must be True or False"),
        (MountOptions, {"read_only": 1}, "read_only is 1; it must be True or False"),
        (MountOptions, {"copy": "x"}, "copy is 'x'; it must be one of auto, device, reflink, host, emulate"),
        (MountOptions, {"copy": ["auto"]}, "copy is ['auto']"),
        (FormatOptions, {"aggregate_conventional": "no"}, "aggregate_conventional is 'no'; it must be True or False"),
        (FormatOptions, {"uid": -1}, "uid is -1; it must be None or a number from 0 to 4294967294"),
        (FormatOptions, {"gid": 0xFFFFFFFF}, "gid is 4294967295; it must be None or"),
        (FormatOptions, {"uid": True}, "uid is True; it must be None or"),
        (FormatOptions, {"uid": "root"}, "uid is 'root'; it must be None or"),
        (FormatOptions, {"gid": 1.0}, "gid is 1.0; it must be None or"),
        (FormatOptions, {"permissions": 0o1000}, "permissions is 512; it must be None or a number from 0 to 0o777"),
        (FormatOptions, {"permissions": "640"}, "permissions is '640'"),
        (FormatOptions, {"label": b"x"}, "label is b'x'; it must be text"),
    ],
)
def test_a_value_that_a_field_cannot_have_is_refused(kind: type, fields: dict[str, Any], message: str) -> None:
    """At once: it would else mean nothing, or something else, until the first error of the device."""
    with pytest.raises(ValueError, match=re.escape(f"{kind.__name__}: {message}")):
        kind(**fields)
