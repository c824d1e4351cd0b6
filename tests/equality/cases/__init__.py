"""Named cases: every row of what kernel zonefs is known to do, as calls whose results are written down.

A case begins with all sequential files empty and nothing open. It knows no expected result: that is what the other
file system answered.
"""

from __future__ import annotations

# A module puts its cases into their groups when it is imported.
from tests.equality.cases import (  # noqa: F401
    attributes,
    conventional,
    copying,
    errors,
    flaky,
    injected,
    limits,
    mapping,
    mounting,
    namespace,
    opening,
    reading,
    small_things,
    tree,
    truncating,
    writing,
    writing_more,
)
from tests.equality.cases.groups import GROUPS, LIVE_GROUPS, Group

__all__ = ["GROUPS", "LIVE_GROUPS", "Group"]
