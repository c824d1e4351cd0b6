"""The pytest plugin, in test runs of its own, as users have them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse cannot be opened; run: chmod 666 /dev/fuse"
)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files of the inner runs."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    return path


def run(pytester: pytest.Pytester, source: str, *options: str, ini: str = "") -> pytest.RunResult:
    """Run *source* as a test module."""
    pytester.makepyfile(source)
    pytester.makeini(f"[pytest]\naddopts = --strict-markers -p no:cacheprovider\nfilterwarnings = error\n{ini}")
    return pytester.runpytest_subprocess("-p", "zonefs_py.testing.plugin", *options)


def test_the_plugin_costs_nothing_until_it_is_used() -> None:
    program = (
        "import sys, zonefs_py.testing.plugin\n"
        "loaded = [name for name in sys.modules if name.startswith('zonefs_py')]\n"
        "assert loaded == ['zonefs_py', 'zonefs_py.testing', 'zonefs_py.testing.plugin'], loaded\n"
        "import zonefs_py.testing.kit\n"
        "assert not {'pyfuse3', 'trio'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_devices(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import pytest
        from zonefs_py import open_device, open_filesystem

        def test_defaults(zonefs_device):
            one, other = zonefs_device(), zonefs_device(zones=4, zone_size="1M", features="perm=600")
            assert one != other
            with open_device(one) as device:
                assert (device.info.nr_zones, device.info.zone_size) == (16, 4 << 20)
            with open_filesystem(other) as fs:
                assert fs.getattr(fs.resolve("seq/0")).mode & 0o777 == 0o600

        @pytest.mark.zonefs(profile="wd-zn540", zones=8)
        class TestDrive:
            @pytest.mark.zonefs(max_open=3)
            def test_markers_add_up(self, zonefs_device):
                with open_device(zonefs_device(zone_size=2 << 20)) as device:
                    info = device.info
                assert (info.nr_zones, info.profile) == (8, "wd-zn540")
                assert (info.max_open_zones, info.max_active_zones) == (3, 14)
        """,
    )
    result.assert_outcomes(passed=2)


def test_where_settings_come_from(pytester: pytest.Pytester) -> None:
    source = """
        import pytest

        def test_ini(zonefs_settings):
            assert (zonefs_settings.choice.zones, zonefs_settings.choice.max_open) == ({zones}, 5)
            assert zonefs_settings.write_cache

        @pytest.mark.zonefs(zones=9)
        def test_marker(zonefs_settings):
            assert (zonefs_settings.choice.zones, zonefs_settings.choice.max_open) == (9, 5)
        """
    ini = "zonefs =\n    zones = 7\n    max_open=5\n    write_cache = yes\n"
    run(pytester, source.replace("{zones}", "7"), ini=ini).assert_outcomes(passed=2)
    run(pytester, source.replace("{zones}", "8"), "--zonefs", "zones=8", ini=ini).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("zone=8", "there is no setting 'zone'; known are zones, conventional"),
        ("zones", "'zones' is not NAME=VALUE"),
        ("zones=x", "zones='x': 'x' is not a number"),
        ("zone_size=4Q", "zone_size='4Q'"),
        ("profile=floppy", "profile='floppy': profile 'floppy': choose one of"),
        ("write_cache=perhaps", "write_cache='perhaps': write yes or no"),
        ("mount_options=errors=no", "errors=no"),
    ],
)
def test_wrong_settings(option: str, says: str, pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test(zonefs_device): zonefs_device()", "--zonefs", option)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*zonefs: *{says.replace('[', '[[]')}*"])


def test_file_systems_and_faults(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import os, pytest
        from zonefs_py import ZonefsError
        from zonefs_py.errors import UserError

        def write(fs, name):
            handle = fs.open(name, os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
            try:
                fs.write(handle, 0, bytes(4096))
            finally:
                fs.release(handle)

        @pytest.mark.zonefs(mount_options="errors=repair")
        def test_faults(zonefs_filesystem, zonefs_faults):
            zonefs_faults.add("write", "fail", zones=3, first=2)
            before = zonefs_filesystem()
            zonefs_faults.add("write", "fail", zones=2, error="ENOSPC")
            for fs in (before, zonefs_filesystem()):
                write(fs, "seq/1")
                with pytest.raises(ZonefsError) as failed:
                    write(fs, "seq/1")
                assert failed.value.errno_name == "EIO"
                with pytest.raises(ZonefsError) as failed:
                    write(fs, "seq/0")
                assert failed.value.errno_name == "ENOSPC"
            assert zonefs_faults.fired == 4
            zonefs_faults.clear()
            write(fs, "seq/0")
            with pytest.raises(UserError, match="effect"):
                zonefs_faults.add("write", "burn")

        def test_a_fault_that_lasts_does_not_fail_the_end(zonefs_filesystem, zonefs_faults):
            zonefs_faults.add("flush", "fail", count=None)
            write(zonefs_filesystem(), "seq/0")

        def test_tests_do_not_see_each_other(zonefs_filesystem, zonefs_faults):
            assert zonefs_faults.fired == 0
            with zonefs_filesystem() as fs:
                assert fs.getattr(fs.resolve("seq/0")).size == 0
        """,
    )
    result.assert_outcomes(passed=3)


def test_power_cuts(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        import os, pytest
        from zonefs_py.errors import UserError

        @pytest.mark.zonefs(write_cache=True)
        @pytest.mark.parametrize(("keep", "blocks"), [("none", 1), ("all", 3)])
        def test_power(zonefs_filesystem, zonefs_power, keep, blocks):
            fs = zonefs_filesystem(write_cache=True)
            handle = fs.open("seq/0", os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
            fs.write(handle, 0, b"a" * 4096)
            fs.fsync(handle)
            fs.write(handle, 4096, b"b" * 8192)
            fs = zonefs_power.cycle(fs, keep)
            assert fs.getattr(fs.resolve("seq/0")).size == blocks * 4096
            assert zonefs_power.last.unflushed == 8192
            fs = zonefs_power.cycle(fs)
            assert fs.getattr(fs.resolve("seq/0")).size == blocks * 4096

        def test_without_a_cache(zonefs_filesystem, zonefs_power):
            with pytest.raises(UserError, match="write-cache"):
                zonefs_power.cycle(zonefs_filesystem())
        """,
    )
    result.assert_outcomes(passed=3)


@needs_fuse
def test_mounts(pytester: pytest.Pytester, temporary: Path) -> None:
    result = run(
        pytester,
        """
        import os, threading, time
        import pytest

        def append(path, data):
            descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
            try:
                os.write(descriptor, data)
            except OSError:
                os.close(descriptor)
                raise
            return descriptor

        def test_a_mount(zonefs_mount):
            mount = zonefs_mount(zones=4)
            assert sorted(os.listdir(mount.path / "seq")) == ["0", "1"]
            os.close(append(mount.path / "seq/0", bytes(4096)))
            mount.remount("ro")
            assert (mount.path / "seq/0").stat().st_size == 4096
            with pytest.raises(OSError, match="Read-only"):
                append(mount.path / "seq/0", bytes(4096))
            mount.unmount()
            assert (mount.device / "seq-000002").stat().st_size == 4096

        def test_two_mounts_of_devices_of_ones_own(zonefs_mount, zonefs_device):
            device = zonefs_device()
            one, other = zonefs_mount(device), zonefs_mount(mount_options="explicit-open")
            assert one.device == device
            assert one.path != other.path

        def test_faults(zonefs_mount, zonefs_faults):
            zonefs_faults.add("write", "fail", zones=2)
            mount = zonefs_mount(mount_options="errors=repair")
            with pytest.raises(OSError, match="Input/output error"):
                append(mount.path / "seq/0", bytes(4096))
            os.close(append(mount.path / "seq/0", bytes(4096)))

        def test_faults_of_a_mount_in_use(zonefs_mount, zonefs_faults):
            mount = zonefs_mount(mount_options="errors=repair")
            os.close(append(mount.path / "seq/0", bytes(4096)))
            zonefs_faults.add("write", "fail", zones=2, error="ENOSPC", count=None)
            other = zonefs_mount(mount_options="errors=repair")
            for name, one in enumerate((mount, other)):
                with pytest.raises(OSError, match="No space left"):
                    append(one.path / "seq/0", bytes(4096))
                assert zonefs_faults.fired == name + 1
            os.close(append(mount.path / "seq/1", bytes(4096)))
            mount.remount()
            with pytest.raises(OSError, match="No space left"):
                append(mount.path / "seq/0", bytes(4096))
            other.unmount()
            zonefs_faults.clear()
            assert zonefs_faults.fired == 0
            os.close(append(mount.path / "seq/0", bytes(4096)))
            with pytest.raises(Exception, match="has zones 0 to 15"):
                zonefs_faults.add("write", "fail", zones=16)
            mount.remount()
            os.close(append(mount.path / "seq/0", bytes(4096)))

        def test_stuck_calls(zonefs_mount, zonefs_faults, zonefs_filesystem):
            mount, fs = zonefs_mount(mount_options="errors=repair"), zonefs_filesystem()
            zonefs_faults.add("flush", "stuck", count=None)
            descriptor = append(mount.path / "seq/0", bytes(4096))
            handle = fs.open("seq/0", os.O_RDONLY)
            errors = []

            def sync(call, *arguments):
                try:
                    call(*arguments)
                except Exception as exc:
                    errors.append(exc)

            calls = [(os.fsync, descriptor), (fs.fsync, handle)]
            threads = [threading.Thread(target=sync, args=call) for call in calls]
            for thread in threads:
                thread.start()
            while zonefs_faults.stuck < 2:
                time.sleep(0.01)
            assert zonefs_faults.release(fail=True) == 2
            for thread in threads:
                thread.join()
            assert len(errors) == 2
            os.close(descriptor)

        def test_power(zonefs_mount):
            mount = zonefs_mount(write_cache=True)
            descriptor = append(mount.path / "seq/0", b"a" * 4096)
            os.fsync(descriptor)
            os.write(descriptor, b"b" * 4096)
            pid = mount.pid
            cut = mount.power_cut()
            assert (cut.unflushed, cut.kept) == (4096, 0)
            assert (mount.path / "seq/0").read_bytes() == b"a" * 4096
            with pytest.raises(OSError, match="Input/output error"):
                os.write(descriptor, b"b" * 4096)
            with pytest.raises(OSError, match="Input/output error"):
                os.close(descriptor)
            os.close(append(mount.path / "seq/0", b"c" * 4096))
            mount.power_cut("all", dead=True)
            with pytest.raises(OSError, match="Input/output error"):
                (mount.path / "seq/0").read_bytes()
            mount.power_on()
            assert (mount.path / "seq/0").read_bytes() == b"a" * 4096 + b"c" * 4096
            assert mount.pid == pid
            assert mount.control.statistics()["activity"]["writes"] == 3

        def test_a_power_cut_needs_a_cache(zonefs_mount):
            with pytest.raises(Exception, match="write_cache=True"):
                zonefs_mount().power_cut()

        def test_a_file_stays_open(zonefs_mount):
            append(zonefs_mount().path / "seq/0", bytes(4096))
        """,
    )
    result.assert_outcomes(passed=8)
    assert list(temporary.glob("zonefs-py-run-*")) == []


@needs_fuse
def test_a_daemon_that_fails_fails_the_test(pytester: pytest.Pytester, temporary: Path) -> None:
    result = run(
        pytester,
        """
        import os, signal, pytest

        def test_killed(zonefs_mount):
            os.kill(zonefs_mount().pid, signal.SIGKILL)

        def test_refused(zonefs_mount, tmp_path):
            with pytest.raises(Exception, match="not an emulated device"):
                zonefs_mount(tmp_path)
        """,
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["the daemon of *mnt1 failed (-9); its log:", "*mounting 16 zones*"])
    assert list(temporary.glob("zonefs-py-run-*")) == []


def test_without_fuse_mounts_are_skipped(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makeconftest(
        "import os\nreal = os.access\nos.access = lambda path, *a: path != '/dev/fuse' and real(path, *a)"
    )
    result = run(
        pytester, "def test(zonefs_mount): pass\ndef test_all_the_same(zonefs_filesystem): zonefs_filesystem()"
    )
    result.assert_outcomes(skipped=1, passed=1)
