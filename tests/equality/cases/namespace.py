"""Names: nothing can be made, removed or renamed."""

from __future__ import annotations

import os
import socket
import stat

from tests.equality import system
from tests.equality.calls import Calls
from tests.equality.cases.groups import case, open_and_close


def new_names(t: Calls) -> None:
    for directory in ("", "cnv/", "seq/"):
        name = f"{directory}new"
        t.on(name, "mkdir", 0o755)
        for kind in (stat.S_IFREG, stat.S_IFIFO):
            t.on(name, "mknod", kind | 0o644)
        t.record("symlink", [name], os.symlink, "target", t.path(name))
        t.record("link", ["seq/0", name], os.link, t.path("seq/0"), t.path(name))
        t.record("rename", ["seq/0", name], os.rename, t.path("seq/0"), t.path(name))
        t.record("creat", [name], open_and_close, t.path(name), os.O_CREAT | os.O_WRONLY)

        def bind(name: str = name) -> None:
            with socket.socket(socket.AF_UNIX) as listener:
                # A path can be 108 bytes long.
                here = os.open(".", os.O_RDONLY)
                os.chdir(os.path.dirname(t.path(name)))
                try:
                    listener.bind(os.path.basename(name))
                finally:
                    os.fchdir(here)
                    os.close(here)

        t.record("bind", [name], bind)


@case("plain")
def new_names_as_root(t: Calls) -> None:
    new_names(t)
    t.on("new", "mknod", stat.S_IFCHR | 0o644)


@case("plain")
def new_names_as_user(t: Calls) -> None:
    with t.user(1000, 1000):
        new_names(t)


@case("plain")
def existing_names(t: Calls) -> None:
    for name in ("seq/0", "cnv/0", "seq"):
        t.on(name, "mkdir", 0o755)
        t.on(name, "mknod", stat.S_IFREG | 0o644)
        t.record("symlink", [name], os.symlink, "target", t.path(name))
        t.record("link", ["seq/1", name], os.link, t.path("seq/1"), t.path(name))
        t.on(name, "unlink")
        t.on(name, "rmdir")
        t.record("readlink", [name], os.readlink, t.path(name))
    for name in ("absent", "seq/absent", ""):
        t.on(name, "unlink")
        t.on(name, "rmdir")
    pairs = (
        ("seq/0", "seq/1"), ("seq/0", "seq/0"), ("seq/0", "cnv/0"), ("seq", "cnv"), ("seq", "other"), ("seq/0", "seq"),
        ("absent", "seq/0"), ("seq/0", "seq/absent"), ("cnv", "seq/0"), ("", "other"),
    )  # fmt: skip
    for old, new in pairs:
        for flags in (0, 1, 2):
            t.record(
                "renameat2",
                [old, new, flags],
                system.renameat2,
                t.path(old),
                t.path(new),
                flags,
            )
    outside = os.path.dirname(t.subject.root)
    t.record("rename-out", ["seq/0"], os.rename, t.path("seq/0"), f"{outside}/out")
    t.record("link-out", ["seq/0"], os.link, t.path("seq/0"), f"{outside}/out")


@case("plain")
def existing_names_as_user(t: Calls) -> None:
    with t.user(1000, 1000):
        t.on("seq/0", "unlink")
        t.on("seq", "rmdir")
        t.on("seq/0", "rmdir")
        t.record("rename", ["seq/0", "seq/1"], os.rename, t.path("seq/0"), t.path("seq/1"))
