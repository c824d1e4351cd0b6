"""The program that has a command run by `command_server`: it starts much faster than ours, by importing nothing."""

import _socket
import os
import signal
import sys

SOCKET = "socket"
NAMESPACE = "/proc/self/ns/mnt"
LARGEST = 1 << 17
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
UNCATCHABLE = (signal.SIGKILL, signal.SIGSTOP)


def pack(name: str, arguments: list[str], environment: "dict[str, str]") -> bytes:
    """A command as a message: its name, the directory and umask of this process, arguments and environment."""
    umask = os.umask(0)
    os.umask(umask)
    variables = [f"{name}={value}" for name, value in environment.items()]
    words = [name, os.getcwd(), str(umask), str(len(arguments)), *arguments, *variables]
    return b"\0".join(map(os.fsencode, words))


def unpack(message: bytes) -> "tuple[str, str, int, list[str], dict[str, str]]":
    """Name, directory, umask, arguments and environment of a message."""
    name, directory, umask, count, *rest = map(os.fsdecode, message.split(b"\0"))
    arguments, variables = rest[: int(count)], rest[int(count) :]
    environment = dict(variable.split("=", 1) for variable in variables)
    return name, directory, int(umask), arguments, environment


def main(programs: str, namespace: str, user: int) -> None:
    """Have the server run this program; run the one in *programs* if this process is not as the server's are.

    Those are of *user*, and see the files of *namespace*, as /proc names it.
    """
    own = os.path.abspath(sys.argv[0])
    name = os.path.basename(own)
    server = os.path.dirname(own)
    if os.geteuid() != user or os.readlink(NAMESPACE) != namespace:
        os.execv(os.path.join(programs, name), [name, *sys.argv[1:]])
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    connection.connect(os.path.join(server, SOCKET))
    descriptors = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
    message = pack(name, sys.argv[1:], dict(os.environ))
    connection.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
    for number in SIGNALS:
        signal.signal(number, lambda number, _: connection.send(str(number).encode()))
    answer = connection.recv(16)
    status = int(answer) if answer else 1
    if status < 0:
        if -status not in UNCATCHABLE:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)
