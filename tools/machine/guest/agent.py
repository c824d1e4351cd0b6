# SPDX-License-Identifier: MIT
"""The first process in the machine: makes devices and runs commands for the host, over one virtio port.

Runs with the system's bare modules (python -I -S): reading modules through 9p costs more than anything done here.
One thread; a request that makes a device is answered before the next one is read.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import sys
import traceback

sys.path.insert(0, sys.argv[1])
from tools.machine.guest import devices
from tools.machine.protocol import PORT_NAME, Decoder, frame

PIPE_BYTES = 65536


def log(text: str) -> None:
    """Say something in the kernel log, which the host keeps."""
    with open("/dev/kmsg", "w") as kmsg:
        kmsg.write(f"machine: {text}\n")


def open_port() -> int:
    """Open the virtio port that leads to the host."""
    ports = "/sys/class/virtio-ports"
    for entry in os.listdir(ports):
        with open(f"{ports}/{entry}/name") as name:
            if name.read().strip() == PORT_NAME:
                return os.open(f"/dev/{entry}", os.O_RDWR | os.O_CLOEXEC)
    raise FileNotFoundError(errno.ENOENT, "the host gave no port", PORT_NAME)


def complain(text: str) -> None:
    """Say on stderr, in place of a command, why it does not run."""
    os.write(2, f"vm: {text}\n".encode(errors="backslashreplace"))


class Job:
    """A command that runs: its process, and the ends of the pipes that carry its output."""

    def __init__(self, number: int, pid: int, pipes: dict[int, str]) -> None:
        self.number = number
        self.pid = pid
        self.pipes = pipes


class Agent:
    """Serve requests until the host goes away."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._poll = select.poll()
        self._poll.register(port, select.POLLIN)
        self._jobs: dict[int, Job] = {}
        self._pipes: dict[int, Job] = {}
        self._forgotten: set[int] = set()
        self._decoder = Decoder()
        # SIGCHLD wakes the poll through a pipe.
        self._wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll.register(self._wake, select.POLLIN)

    def send(self, kind: str, job: int, payload: bytes = b"") -> None:
        """Send one frame."""
        data = memoryview(frame(kind, job, payload))
        while data:
            data = data[os.write(self._port, data) :]

    def answer(self, job: int, **result: object) -> None:
        """Send the end of *job*."""
        self.send("X", job, json.dumps(result).encode())

    def serve(self) -> None:
        """Work until the port is closed at the other end, or power-off is asked for."""
        self.send("H", 0, json.dumps({"kernel": os.uname().release}).encode())
        while True:
            for descriptor, event in self._poll.poll():
                if descriptor == self._port:
                    if event & select.POLLIN:
                        data = os.read(self._port, PIPE_BYTES)
                        if not data or not self._take(data):
                            return
                    elif event & (select.POLLHUP | select.POLLERR):
                        return
                elif descriptor == self._wake:
                    os.read(self._wake, PIPE_BYTES)
                    self._reap()
                elif descriptor in self._forgotten:
                    self._discard(descriptor)
                elif descriptor in self._pipes:
                    self._forward(self._pipes[descriptor], descriptor)

    def _take(self, data: bytes) -> bool:
        """Serve the requests that are complete with *data*; False if the last one was to power off."""
        for kind, job, payload in self._decoder.feed(data):
            if kind == "P":
                return False
            try:
                self._request(kind, job, payload)
            except OSError as exc:
                self.answer(job, error=f"{exc.filename}: {exc.strerror}" if exc.filename else str(exc))
            except devices.DeviceError as exc:
                self.answer(job, error=str(exc))
        return True

    def _request(self, kind: str, number: int, payload: bytes) -> None:
        if kind == "R":
            request = json.loads(payload)
            self._run(number, request["argv"], request["env"], request["cwd"])
        elif kind == "K":
            job = self._jobs.get(number)
            if job is not None:
                # Its process group is gone only when it is reaped, which this thread does.
                os.killpg(job.pid, int(payload))
        elif kind == "A":
            request = json.loads(payload)
            self.answer(number, path=devices.add(request["kind"], request["settings"]))
        elif kind == "D":
            devices.remove(payload.decode())
            self.answer(number, path=payload.decode())

    def _run(self, number: int, argv: list[str], env: dict[str, str], cwd: str) -> None:
        """Start a command in a session of its own, as a shell would: 127 if there is none, 126 if it does not run."""
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
                os.dup2(out_write, 1)
                os.dup2(err_write, 2)
                os.chdir(cwd)
                os.execvpe(argv[0], argv, env)
            except OSError as exc:
                what = cwd if exc.filename == cwd else argv[0]
                complain(f"{what}: {exc.strerror}")
                os._exit(127 if exc.errno == errno.ENOENT else 126)
            except ValueError as exc:
                # A null character or the like: nothing that a system call can be told.
                complain(f"{argv[0]!r} cannot be run: {exc}")
            finally:
                # Whatever happens, this must not go on as a second first process, whose end would be the machine's.
                os._exit(126)
        os.close(out_write)
        os.close(err_write)
        job = self._jobs[number] = Job(number, pid, {out_read: "o", err_read: "e"})
        for descriptor in job.pipes:
            os.set_blocking(descriptor, False)
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            self._pipes[descriptor] = job
            self._poll.register(descriptor, select.POLLIN)

    def _forward(self, job: Job, descriptor: int) -> None:
        """Pass on what is in a pipe now: one read takes as much as it can hold."""
        try:
            data = os.read(descriptor, PIPE_BYTES)
        except BlockingIOError:
            return
        if data:
            self.send(job.pipes[descriptor], job.number, data)
            return
        self._close(descriptor)
        del job.pipes[descriptor]

    def _close(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._pipes.pop(descriptor, None)
        self._forgotten.discard(descriptor)
        os.close(descriptor)

    def _discard(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, PIPE_BYTES)
        except BlockingIOError:
            return  # it was emptied for the command, after the poll that said that there is something
        if not data:
            self._close(descriptor)

    def _reap(self) -> None:
        """Report the commands that ended. What they left running may write on, to nobody."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for job in [job for job in self._jobs.values() if job.pid == pid]:
                for descriptor in list(job.pipes):
                    # Once: what the command itself wrote is in the pipe, and those that it left may write for ever.
                    self._forward(job, descriptor)
                for descriptor in job.pipes:
                    del self._pipes[descriptor]
                    self._forgotten.add(descriptor)
                del self._jobs[job.number]
                self.answer(job.number, status=os.waitstatus_to_exitcode(status))


def power_off() -> None:
    """End the machine now: nothing in it is worth writing back."""
    with open("/proc/sysrq-trigger", "w") as trigger:
        trigger.write("o")
    signal.pause()


def main() -> None:
    """Be the first process."""
    try:
        Agent(open_port()).serve()
    except Exception:
        for line in traceback.format_exc().splitlines():
            log(line)
    power_off()


main()
