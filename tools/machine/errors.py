"""What tools/vm says in one line."""

from __future__ import annotations


class VmError(Exception):
    """Bad input, or something that this computer lacks: nothing was started."""


class MachineError(Exception):
    """The machine did not come up, died, or took too long. The message names the kernel log if there is one."""


class QemuError(MachineError):
    """QEMU does not run here, or not with what it was told; the machine's kernel was not reached."""


class StartError(MachineError):
    """The machine did not come up, for a reason that may not be there the next time."""
