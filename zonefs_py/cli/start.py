"""Where the commands begin, before anything else is imported."""

from __future__ import annotations

import signal
from importlib import import_module


def zonefs_py() -> int:
    """Run ``zonefs-py`` and return its exit status."""
    return _run("zonefs_py.cli.main")


def mkzonefs() -> int:
    """Run ``mkzonefs`` and return its exit status."""
    return _run("zonefs_py.cli.mkzonefs")


def mount_helper() -> int:
    """Run ``mount.fuse.zonefs-py`` and return its exit status."""
    return _run("zonefs_py.cli.mount_helper")


def _run(module: str) -> int:
    # Imports take most of a short command's time. A Ctrl-C meanwhile would end in a traceback; nothing is begun that
    # had to be cleaned up, so it may just end the process. What ignores Ctrl-C already (nohup) goes on to do so.
    interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interrupts:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    main = import_module(module).main
    if interrupts:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    status: int = main()
    return status
