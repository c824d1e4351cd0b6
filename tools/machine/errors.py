"""What tools/vm says in one line."""

from __future__ import annotations


class VmError(Exception):
    """Bad input, or something that this computer lacks: nothing was started."""


class MachineError(Exception):
    """The machine did not come up, died, or took too long. The message names the kernel log if there is one."""


class StartError(MachineError):
    """The machine did not come up, for a reason that may not be there the next time."""
