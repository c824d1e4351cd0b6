"""The machine itself: commands, devices of every kind, and how it ends (tools/vm, tools/machine)."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import select
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import Guest, running_machine
from tools.machine import qemu, session
from tools.machine.errors import MachineError, VmError
from tools.machine.packages import Cache
from tools.machine.session import Machine, Settings, default_cache
from tools.machine.specs import NULL_BLK_KEYS, SCSI_DEBUG_KEYS, ZNS_KEYS

ROOT = Path(__file__).resolve().parent.parent.parent
VM = ROOT / "tools/vm"
MACHINE_FAILED = 125


def vm(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run tools/vm from outside."""
    return subprocess.run(
        [sys.executable, VM, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def ends(pid: int) -> None:
    """Wait until a process is gone."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([process], [], [], 30)[0], f"process {pid} is still there"
    finally:
        os.close(process)


# Commands


def test_output_and_status_come_back_apart(guest: Guest) -> None:
    done = guest.run("sh", "-c", "echo out; echo err >&2; exit 42", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (42, "out\n", "err\n")
    assert guest.run("sh", "-c", "kill -TERM $$", check=False).returncode == -15
    assert guest.run("cat").stdout == "", "stdin is closed"


def test_a_command_that_does_not_exist(guest: Guest) -> None:
    done = guest.run("no-such-program", check=False)
    assert done.returncode == 127
    assert done.stderr == "vm: no-such-program: No such file or directory\n"


def test_large_output_is_complete(guest: Guest) -> None:
    expected = b"".join(b"%d\n" % number for number in range(1, 300_001))
    result = guest.machine.run(["seq", "300000"])
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(expected).digest()


def test_commands_run_side_by_side(guest: Guest) -> None:
    """Each waits for the other's file: neither could end if they ran one after another."""
    script = 'touch "/run/$1"; until [ -e "/run/$2" ]; do sleep 0.1; done; echo "$1"'
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(guest.shell, script, "one", "two")
        second = pool.submit(guest.shell, script, "two", "one")
        assert (first.result(), second.result()) == ("one\n", "two\n")


def test_what_a_command_leaves_running_does_not_hold_it_up(guest: Guest) -> None:
    done = guest.run("sh", "-c", "sleep 1000 & echo $!")
    guest.run("kill", done.stdout.strip())


def test_what_a_command_leaves_writing_does_not_hold_it_up(guest: Guest) -> None:
    script = """
        for number in 1 2 3 4 5 6 7 8; do
            yes &
            echo $! >&2
        done
        until [ "$(sed -n 's/^wchar: //p' /proc/$!/io)" -gt 100000 ]; do :; done
        exit 3
    """
    done = guest.run("sh", "-c", script, check=False, timeout=120)
    assert done.returncode == 3
    assert guest.run("echo", "still here", timeout=120).stdout == "still here\n"
    guest.run("kill", *done.stderr.split())


@pytest.mark.parametrize(
    ("command", "variable"), [(["echo", "a\0b"], "x"), (["a\0b"], "x"), (["echo"], "a\0b")], ids=repr
)
def test_a_command_that_no_system_call_can_take(guest: Guest, command: list[str], variable: str) -> None:
    """It is refused, and the machine lives on."""
    done = guest.run(*command, check=False, VARIABLE=variable)
    assert (done.returncode, done.stdout) == (126, "")
    assert re.fullmatch(rf"vm: {re.escape(repr(command[0]))} cannot be run: .*embedded null .*\n", done.stderr)
    assert guest.run("echo", "still here").stdout == "still here\n"


def test_it_is_root_in_this_directory_with_these_files(guest: Guest) -> None:
    assert guest.shell("id -u; pwd").split() == ["0", os.getcwd()]
    assert guest.run("cat", __file__).stdout == Path(__file__).read_text()
    guest.shell('echo changed >"$1"; test "$(cat "$1")" = changed', ROOT / "LICENSE")
    assert (ROOT / "LICENSE").read_text() != "changed\n", "writes outside the share vanish"


def test_the_share_is_seen_on_both_sides(guest: Guest) -> None:
    (guest.share / "from-host").write_text("made while the machine runs\n")
    assert guest.run("cat", guest.share / "from-host").stdout == "made while the machine runs\n"
    guest.shell('echo inside >"$ZONEFS_VM_SHARE/from-guest"')
    assert (guest.share / "from-guest").read_text() == "inside\n"


def test_our_programs_run_inside(guest: Guest) -> None:
    assert guest.python("-m", "zonefs_py.cli.main", "--version").stdout.startswith("zonefs-py ")


def test_a_command_that_takes_too_long_is_killed(guest: Guest) -> None:
    with pytest.raises(MachineError, match=r"^sh did not end within 1 s; kernel log: /.*\.log$") as failure:
        guest.run("sh", "-c", "echo $$ >/run/slow; exec sleep 1000", timeout=1)
    assert Path(str(failure.value).rpartition(" ")[2]).is_file()
    guest.shell('pid=$(cat /run/slow); while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done')


# Devices


def test_null_blk_mounts_in_kernel_zonefs(guest: Guest) -> None:
    with guest.device("null_blk:zones=16,zone_size=4M,zone_capacity=3M,zone_nr_conv=4,blocksize=4096") as device:
        assert guest.queue(device, "zoned") == "host-managed"
        assert guest.queue(device, "nr_zones") == "16"
        assert guest.queue(device, "logical_block_size") == "4096"
        guest.format(device)
        with guest.mounted(device) as directory:
            files = guest.shell('cd "$1"; ls cnv | sort -n; echo; ls seq | sort -n', directory)
            assert files.split() == [*map(str, range(3)), *map(str, range(12))]
            assert guest.run("stat", "-c", "%s %b", f"{directory}/cnv/0", f"{directory}/seq/0").stdout.split() == [
                *("4194304", "8192"),
                *("0", "6144"),
            ]
            write = 'dd if=/dev/zero of="$1/seq/0" bs=8192 count=1 oflag=direct,append conv=notrunc status=none'
            guest.shell(write, directory)
            assert guest.run("stat", "-c", "%s", f"{directory}/seq/0").stdout == "8192\n"
        assert "wptr 0x000010" in guest.run("blkzone", "report", "-o", str(4 * 8192), "-c", "1", device).stdout


def test_null_blk_limits_and_a_runt_zone(guest: Guest) -> None:
    with (
        guest.device("null_blk:zone_max_open=3,zone_max_active=5,zone_append_max_sectors=64") as limited,
        guest.device("null_blk:size=62M,zone_size=4M") as runt,
    ):
        assert limited != runt
        assert guest.queue(limited, "max_open_zones") == "3"
        assert guest.queue(limited, "max_active_zones") == "5"
        assert guest.queue(limited, "zone_append_max_bytes") == str(64 * 512)
        assert guest.queue(runt, "nr_zones") == "16"
    assert guest.run("test", "-e", limited, check=False).returncode == 1, "it was removed"


def test_null_blk_with_a_read_only_and_an_offline_zone(guest: Guest) -> None:
    with guest.device("null_blk:zones=8") as device:
        name = device.removeprefix("/dev/")
        guest.shell(
            f"cd /sys/kernel/config/nullb/{name}; echo {4 * 8192} >zone_readonly; echo {5 * 8192} >zone_offline"
        )
        report = guest.run("blkzone", "report", device).stdout.splitlines()
        assert ["(ro)" in line for line in report] == [number == 4 for number in range(8)]
        assert ["(of)" in line for line in report] == [number == 5 for number in range(8)]


def test_zns_with_its_copy_limits(guest: Guest) -> None:
    assert guest.queue(guest.zns, "zoned") == "host-managed"
    assert guest.queue(guest.zns, "nr_zones") == "16"
    assert guest.queue(guest.zns, "max_open_zones") == "6"
    assert guest.queue(guest.zns, "max_active_zones") == "8"
    # Identify Namespace (NVM command set): MSSRL, MCL and MSRC in bytes 74 to 80; MSRC is 0-based.
    program = """
import fcntl, struct, sys
data = bytearray(4096)
import ctypes
buffer = (ctypes.c_char * 4096).from_buffer(data)
command = bytearray(72)
struct.pack_into("<BBHI", command, 0, 0x06, 0, 0, 1)
struct.pack_into("<QII", command, 24, ctypes.addressof(buffer), 0, 4096)
with open(sys.argv[1], "rb") as device:
    fcntl.ioctl(device, 0xC0484E41, command)
print(*struct.unpack_from("<HIB", data, 74))
"""
    assert guest.python("-c", program, guest.zns).stdout == "128 256 15\n"
    guest.format(guest.zns)
    with guest.mounted(guest.zns) as directory:
        assert guest.shell('ls "$1/seq" | wc -l', directory) == "15\n"


def test_scsi_debug(guest: Guest) -> None:
    with guest.device("scsi_debug:zbc=managed,dev_size_mb=64,zone_size_mb=4,zone_nr_conv=4,sector_size=4096") as device:
        assert guest.queue(device, "zoned") == "host-managed"
        assert guest.queue(device, "nr_zones") == "16"
        with pytest.raises(MachineError, match="there is a scsi_debug already"):
            guest.machine.add_device("scsi_debug")
        guest.format(device)
        with guest.mounted(device) as directory:
            assert guest.shell('ls "$1/seq" | wc -l; ls "$1/cnv" | wc -l', directory).split() == ["12", "3"]


def test_a_host_aware_disk_has_no_zones_for_this_kernel(guest: Guest) -> None:
    """Since 6.9. To us as to kernel zonefs it is a disk without zones then."""
    with guest.device("scsi_debug:zbc=aware,dev_size_mb=64,zone_size_mb=4") as device:
        assert guest.queue(device, "zoned") == "none"
        for command in ("info", "mkfs"):
            refused = guest.python("-m", "zonefs_py.cli.main", command, device, check=False)
            assert refused.returncode == 1
            assert f"{device} is a block device without zones" in refused.stderr
        mount = guest.run("mount", "-t", "zonefs", device, "/mnt", check=False)
        assert mount.returncode != 0


def test_nvmet(guest: Guest) -> None:
    with guest.device("nvmet:zones=8,zone_size=4M,blocksize=4096") as device:
        assert device.startswith("/dev/nvme")
        assert guest.queue(device, "zoned") == "host-managed"
        assert guest.queue(device, "nr_zones") == "8"
        guest.format(device)
        with guest.mounted(device) as directory:
            assert guest.shell('ls "$1/seq" | wc -l', directory) == "7\n"


def test_the_keys_are_the_drivers(guest: Guest) -> None:
    with guest.device("null_blk"):
        features = guest.shell("cat /sys/kernel/config/nullb/features").strip().split(",")
    assert set(NULL_BLK_KEYS) - {"zones"} <= set(features)
    parameters = guest.shell("modinfo -F parm scsi_debug").splitlines()
    assert set(SCSI_DEBUG_KEYS) <= {line.partition(":")[0] for line in parameters}
    programs = Cache(default_cache()).programs()
    assert programs is not None
    known = set()
    for model in ("nvme", "nvme-ns"):
        done = subprocess.run([programs.qemu, "-device", f"{model},help"], capture_output=True, text=True, check=True)
        known |= {line.partition("=")[0].strip() for line in done.stdout.splitlines()}
    assert {key for key in ZNS_KEYS if {key, f"zoned.{key}"}.isdisjoint(known)} == {"zones", "size"}


def test_what_the_kernel_refuses_is_said(guest: Guest) -> None:
    with pytest.raises(MachineError, match=r"^device null_blk:blocksize=7 was not made: "):
        guest.machine.add_device("null_blk:blocksize=7")
    with pytest.raises(MachineError, match=r"^/dev/null was not removed: /dev/null was not made by this machine"):
        guest.machine.remove_device("/dev/null")
    with pytest.raises(VmError, match="only when the machine is started"):
        guest.machine.add_device("zns")


# Machines of their own. Those that start one need the guest only to be skipped where no machine can be started.


def test_bad_devices_are_refused_before_anything_starts(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    done = vm("run", "--cache", cache, "--device", "null_blk:zone_sizes=4M", "true")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "vm: device 'null_blk:zone_sizes=4M': null_blk has no key 'zone_sizes'; its keys are "
    )
    assert done.stderr.count("\n") == 1
    assert not cache.exists()


@pytest.mark.usefixtures("guest")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a plain user here; the other tests are one already")
def test_a_plain_user_runs_a_machine(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = Path("/var/tmp") / f"zonefs-py-test-{os.getpid()}"
    nobody = pwd.getpwnam("nobody")
    python = next(path for path in (Path(sys.executable).resolve(), Path("/usr/bin/python3")) if public(path))
    try:
        # A cache of their own, as if they had fetched it; hard links would do if it were on one file system.
        for part in ("kernel", "tools"):
            if (default_cache() / part).exists():
                shutil.copytree(default_cache() / part, directory / part, symlinks=True)
        for path in [directory, *directory.rglob("*")]:
            os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)
        (share := directory / "share").mkdir()
        os.chown(share, nobody.pw_uid, nobody.pw_gid)
        done = subprocess.run(
            [
                *(
                    "setpriv",
                    f"--reuid={nobody.pw_uid}",
                    f"--regid={nobody.pw_gid}",
                    "--clear-groups",
                    "--",
                    python,
                    VM,
                ),
                *("run", "--cache", directory, "--share", share, "--device", "null_blk", "--"),
                *("sh", "-c", 'id -u; cat /sys/block/nullb0/queue/zoned; echo kept >"$ZONEFS_VM_SHARE/file"; exit 9'),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "HOME": str(directory)},
        )
        assert (done.returncode, done.stdout, done.stderr) == (9, "0\nhost-managed\n", "")
        assert (share / "file").read_text() == "kept\n"
        assert (share / "file").stat().st_uid == nobody.pw_uid
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def public(path: Path) -> bool:
    """Whether everybody may reach and run *path*."""
    return bool(path.stat().st_mode & 0o1) and all(parent.stat().st_mode & 0o1 for parent in path.parents)


@pytest.mark.usefixtures("guest")
def test_a_machine_with_a_name_until_its_kernel_panics() -> None:
    name = f"test-{os.getpid()}"
    missing = vm("exec", "--name", name, "true")
    assert (missing.returncode, missing.stderr) == (
        2,
        f"vm: no machine called {name} is running; tools/vm start --name {name} starts one\n",
    )
    started = vm("start", "--name", name, "--owner", str(os.getpid()), "--device", "null_blk:zones=8")
    try:
        assert (started.returncode, started.stdout, started.stderr) == (0, "/dev/nullb0\n", "")
        again = vm("start", "--name", name)
        assert again.returncode == 2
        assert again.stderr.startswith(f"vm: a machine called {name} is running already")
        script = "echo $ZONEFS_VM_DEVICES $WORD; echo err >&2; exit 5"
        done = vm("exec", "--name", name, "--env", "WORD=hello", "--", "sh", "-c", script)
        assert (done.returncode, done.stdout, done.stderr) == (5, "/dev/nullb0 hello\n", "err\n")
        added = vm("device", "--name", name, "add", "null_blk:zones=4")
        assert (added.stdout, added.returncode) == ("/dev/nullb1\n", 0)
        assert vm("device", "--name", name, "remove", "/dev/nullb1").returncode == 0
        assert vm("exec", "--name", name, "--timeout", "1", "sleep", "1000").returncode == MACHINE_FAILED
        info = dict(line.split(": ") for line in vm("info", "--name", name).stdout.splitlines())
        share = Path(info["share"])
        assert vm("exec", "--name", name, "--", "sh", "-c", f"echo kept >{share}/file").returncode == 0
        assert (share / "file").read_text() == "kept\n"

        crash = vm("exec", "--name", name, "--", "sh", "-c", "echo c >/proc/sysrq-trigger; sleep 1000")
        assert (crash.returncode, crash.stdout) == (MACHINE_FAILED, "")
        assert crash.stderr.startswith("vm: the kernel panicked: sysrq triggered crash; kernel log: ")
        log = Path(crash.stderr.rpartition("kernel log: ")[2].strip())
        assert "Kernel panic - not syncing: sysrq triggered crash" in log.read_text(errors="replace")
        ends(int(info["qemu"]))
        assert vm("exec", "--name", name, "true").stderr == crash.stderr, "it stays to say why"
    finally:
        stopped = vm("stop", "--name", name)
    assert (stopped.returncode, stopped.stderr) == (0, "")
    ends(int(info["server"]))
    assert vm("info", "--name", name).returncode == 2


@pytest.mark.usefixtures("guest")
def test_a_kernel_that_panics_while_it_starts_is_started_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice at most; here it has no init the first time, and then never."""
    bad, good = f"{qemu.KERNEL_COMMAND_LINE} rdinit=/none root=/dev/none", qemu.KERNEL_COMMAND_LINE
    command_line = qemu.command_line
    kernels = [bad, good]

    def changed(*arguments: Any, **more: Any) -> list[str]:
        words = command_line(*arguments, **more)
        words[words.index("-append") + 1] = kernels.pop(0)
        return words

    monkeypatch.setattr(qemu, "command_line", changed)
    with Machine.start(Settings()) as machine:
        assert machine.run(["nproc"]).stdout == b"2\n"
    (message,) = caplog.messages
    assert re.fullmatch(r"the kernel panicked: VFS: .*; kernel log: /.*\.log; starting it again \(2 of 3\)", message), (
        message
    )

    kernels = [bad, bad, good]
    monkeypatch.setattr(session, "STARTS", 2)
    with pytest.raises(MachineError, match=r"^the kernel panicked: VFS: "):
        Machine.start(Settings())
    assert kernels == [good]


@pytest.mark.usefixtures("guest")
def test_qemu_goes_with_whoever_started_it(tmp_path: Path) -> None:
    """`tools/vm run` is killed in the hardest way; nothing is left."""
    share = tmp_path / "share"
    share.mkdir()
    command = ["sh", "-c", 'echo up >"$ZONEFS_VM_SHARE/up"; exec sleep 1000']
    runner = subprocess.Popen(
        [sys.executable, VM, "run", "--share", share, "--", *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        ready = threading.Event()
        for _ in range(3000):
            if (share / "up").exists():
                break
            assert runner.poll() is None
            ready.wait(0.1)
        else:
            pytest.fail("the machine did not come up")
        (qemu,) = children(runner.pid)
    finally:
        runner.kill()
        runner.wait()
        assert runner.stdout is not None
        runner.stdout.close()
    ends(qemu)


def children(pid: int) -> list[int]:
    """The processes that *pid* started."""
    return [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]


def test_where_qemu_does_not_run_tests_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the reason is QEMU's own."""
    command_line = qemu.command_line
    monkeypatch.setattr(qemu, "command_line", lambda *words, **more: [*command_line(*words, **more), "-no-such-option"])
    with (
        pytest.raises(
            pytest.skip.Exception, match=r"no virtual machine can be started here: QEMU failed: .*no-such-option"
        ),
        running_machine(Settings()),
    ):
        pass
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(pytest.skip.Exception, match=r"no virtual machine can be started here: .* no apt-get and dpkg"),
        running_machine(Settings(cache=tmp_path / "cache")),
    ):
        pass
