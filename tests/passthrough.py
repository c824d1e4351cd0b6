"""Whether the mounts that tests make pass reads through to the kernel; ``pytest --passthrough`` says."""

from __future__ import annotations

import os

VARIABLE = "ZONEFS_TEST_PASSTHROUGH"
"""``on``, ``off`` or ``auto``; the shell suite obeys it too."""


def with_passthrough(options: str) -> str:
    """Return mount *options* with what was asked for, unless they say something about passthrough themselves."""
    wanted = os.environ.get(VARIABLE, "auto")
    if wanted == "auto" or "passthrough" in options:
        return options
    return f"{options},passthrough={wanted}" if options else f"passthrough={wanted}"
