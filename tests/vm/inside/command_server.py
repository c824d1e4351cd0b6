"""Runs our commands for the shell suite in processes that are forked from one that has imported everything.

In the machine, starting Python and importing what a mount needs takes several seconds of the processor's time, more
than all else that a script does. ``command_server DIRECTORY [NAME=MODULE...]`` fills DIRECTORY with programs named as
ours (`command_client`), or with NAMEs that call the function main of a MODULE each, and returns when they can be used;
its process stays until it is ended.

A connection is one command: a message of `pack`'s with the standard descriptors comes in, then signals for it as
decimal numbers; its exit status goes out, negative if a signal ended it. When the client is gone the command is killed.
"""

from __future__ import annotations

import array
import contextlib
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.vm.inside import command_client as client

PROGRAMS = {
    "zonefs-py": "zonefs_py.cli.main",
    "mkzonefs": "zonefs_py.cli.mkzonefs",
    "mount.fuse.zonefs-py": "zonefs_py.cli.mount_helper",
}
PID_FILE = "ZONEFS_PY_PID_FILE"
"""A file named by this variable gets the command's process id, which is not the client's."""
NOT_FOUND = 127
"""The exit status of a program that there is not; as a shell has it."""


def preload() -> None:
    """Import what our commands need."""
    import zonefs_py.control.server
    import zonefs_py.device.blockdev
    import zonefs_py.device.nvme
    import zonefs_py.fs.filesystem
    import zonefs_py.fuse.serve  # noqa: F401  (read once instead of in each fork)
    from zonefs_py.cli.main import COMMANDS

    for module, _ in COMMANDS.values():
        importlib.import_module(module)


class Job:
    """A command that runs, and its client."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.connection = connection
        self.pid = pid
        self.process = os.pidfd_open(pid)

    def finish(self) -> None:
        """Tell the client the status of the command, which has ended."""
        _, status = os.waitpid(self.pid, 0)
        with contextlib.suppress(OSError):
            self.connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        self.connection.close()
        os.close(self.process)


def begin(connection: socket.socket, others: list[socket.socket]) -> Job | None:
    """Start the command that *connection* asks for. Returns None in its process, which is to run `sys.argv`."""
    descriptors = array.array("i")
    message, ancillary, _, _ = connection.recvmsg(client.LARGEST, socket.CMSG_SPACE(3 * descriptors.itemsize))
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        return Job(connection, pid)
    for other in (connection, *others):
        other.close()
    os.setsid()
    name, directory, umask, arguments, environment = client.unpack(message)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(directory)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)
    if PID_FILE in environment:
        Path(environment[PID_FILE]).write_text(f"{os.getpid()}\n")
    sys.argv = [name, *arguments]
    return None


def serve(listener: socket.socket) -> None:
    """Start commands for ever. Returns in the process of each, which is to run `sys.argv`."""
    jobs: dict[int, Job] = {}
    while True:
        waiting: list[socket.socket | int] = [listener, *jobs]
        ready, _, _ = select.select(waiting, [], [])
        for one in ready:
            if one is listener:
                connection, _ = listener.accept()
                others = [listener, *{job.connection for job in jobs.values()}]
                job = begin(connection, others)
                if job is None:
                    return
                jobs[job.process] = jobs[connection.fileno()] = job
            elif one in jobs:
                job = jobs[one]
                if one == job.process:
                    del jobs[one], jobs[job.connection.fileno()]
                    job.finish()
                else:
                    numbers = job.connection.recv(16) or str(int(signal.SIGKILL)).encode()
                    signal.pidfd_send_signal(job.process, int(numbers))
                    if int(numbers) == signal.SIGKILL:
                        # It is ending, and its client is gone.
                        del jobs[one], jobs[job.process]
                        job.finish()


def main(directory: Path, programs: Mapping[str, str] = PROGRAMS) -> int:
    """Be the server of *programs*, modules by name; in a process of a command's, run it. Returns the exit status."""
    if programs is PROGRAMS:
        preload()
    functions = {name: importlib.import_module(module).main for name, module in programs.items()}
    directory.mkdir()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(directory / client.SOCKET))
    listener.listen(16)
    program = Path(client.__file__).read_text()
    arguments = (str(Path(sys.executable).parent), os.readlink(client.NAMESPACE), os.geteuid())
    for name in programs:
        path = directory / name
        path.write_text(f"#!{os.path.realpath(sys.executable)} -IS\n{program}\nmain{arguments!r}\n")
        path.chmod(0o755)
    if os.fork():
        os._exit(0)
    os.setsid()
    serve(listener)
    name = Path(sys.argv[0]).name
    if name not in functions:
        print(f"{name}: no such program", file=sys.stderr)
        return NOT_FOUND
    status: int = functions[name]()
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:]) or PROGRAMS))
