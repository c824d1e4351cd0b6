"""Where temporary files go: where the user says, or an error."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from zonefs_py.errors import UserError


def make_temporary_directory(prefix: str) -> Path:
    """Make a directory of this user's alone, named *prefix* and something; return its path, without links.

    Raises UserError if TMPDIR names no directory in which that can be done, OSError.
    """
    wanted = os.environ.get("TMPDIR")
    # Python would go on to another one without a word.
    if wanted and not (os.path.isdir(wanted) and os.access(wanted, os.W_OK | os.X_OK, effective_ids=True)):
        raise UserError(f"TMPDIR is {wanted}, which is no directory that can be written to")
    return Path(tempfile.mkdtemp(prefix=prefix)).resolve()
