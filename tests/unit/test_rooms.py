"""The architecture, read from the source: who imports whom, and what must stay out of which room.

The rules are those of docs/architecture.md. Imports inside functions count too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import zonefs_py

ROOT = Path(zonefs_py.__file__).parent

# Imports go down only. The package itself is on top: it offers what users import.
LEVELS = {
    "": 7,
    "cli": 6,
    "testing": 6,
    "control": 6,
    "fuse": 5,
    "fs": 4,
    "copy": 3,
    "device": 2,
    "config": 1,
    "zone": 0,
    "errors": 0,
    "units": 0,
}

# Modules that decide and do not act: they can be driven a million times by a test.
PURE = {
    "config",
    "copy.abi",
    "copy.limits",
    "copy.plan",
    "copy.schedule",
    "device.choice",
    "device.conditions",
    "device.description",
    "device.fault_rules",
    "device.nvme_copy",
    "device.nvme_status",
    "device.stack_spec",
    "errors",
    "fs.access",
    "fs.describe",
    "fs.explain",
    "fs.layout",
    "fs.superblock",
    "testing.calls",
    "testing.settings",
    "units",
    "zone",
}
IMPURE_MODULES = {"os", "time", "threading", "random", "logging"}

# What only some modules may import.
RESERVED = {
    "pyfuse3": {"fuse"},
    "trio": {"fuse"},
    "errno": {"errors"},
    "ctypes": {"device._libzbd", "device.libzbd", "device.aligned", "cli._mount_syscalls"},
    "click": {"cli"},
    "pytest": {"testing.plugin"},
}


def modules() -> dict[str, Path]:
    """Every module by its name below the package ("" for the package itself)."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all that a module imports, with the imported name where that is a module of ours."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full.removeprefix("zonefs_py.") in MODULES else node.module


def ours(path: Path) -> set[str]:
    """Which of our modules a module imports, "" for the package itself."""
    return {
        name.removeprefix("zonefs_py").removeprefix(".")
        for name in imports(path)
        if name == "zonefs_py" or name.startswith("zonefs_py.")
    }


def room(module: str) -> str:
    return module.partition(".")[0]


def imports_only_the_version(path: Path) -> bool:
    """Whether all that the module takes from the package itself is its version."""
    return all(
        [alias.name for alias in node.names] == ["__version__"]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and node.module == "zonefs_py"
        and not any(alias.name in MODULES for alias in node.names)
    )


def test_every_room_is_known() -> None:
    assert {room(module) for module in MODULES} <= set(LEVELS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    for target in ours(MODULES[module]):
        if target == "" and imports_only_the_version(MODULES[module]):
            continue
        assert target in MODULES, f"{module} imports {target}, which does not exist"
        if room(target) != room(module):
            assert LEVELS[room(target)] <= LEVELS[room(module)], f"{module} imports upwards: {target}"
            assert LEVELS[room(module)] > 0, f"{module} must import nothing of ours: {target}"


def test_there_are_no_cycles() -> None:
    graph = {module: ours(path) - {""} for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", sorted(PURE & set(MODULES)))
def test_pure_modules_stay_pure(module: str) -> None:
    allowed = {"os", "errno"} if module == "errors" else set()
    found = {name.partition(".")[0] for name in imports(MODULES[module])}
    assert found & IMPURE_MODULES <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_reserved_modules_stay_where_they_belong(module: str) -> None:
    for name in imports(MODULES[module]):
        places = RESERVED.get(name.partition(".")[0])
        assert places is None or module in places or room(module) in places, f"{module} imports {name}"


# The calls of a file system that handlers of requests make themselves, in trio's thread: none waits for a file's lock.
# Others are made by workers, who get the method and call it.
WAITING_FOR_NOBODY = {
    *("lookup", "getattr", "readdir", "statfs", "is_sequential", "is_offline", "is_synchronous"),
    *("count_as_read", "note_refusal"),
    *("refuse_create", "refuse_remove", "refuse_rename"),
    *("open_now", "read_now", "write_now", "copy_range_now"),
}


@pytest.mark.parametrize("module", ["fuse.operations", "fuse.fixed_names"])
def test_handlers_wait_for_no_lock_of_a_file(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("self._fs."):
            name = ast.unparse(node.func).removeprefix("self._fs.")
            # With a dot: what belongs to the device, or to something else that has no files.
            assert name in WAITING_FOR_NOBODY or "." in name, f"{module}, line {node.lineno}: {name}"


def test_the_command_line_starts_without_fuse() -> None:
    # Importing pyfuse3 and trio takes longer than all else together. Only a mount that goes ahead needs them.
    program = """
import sys
from importlib import import_module
from zonefs_py.cli.main import COMMANDS, main
assert main(["--help"]) == 0
loaded = [name for name in sys.modules if name.startswith(("zonefs_py.device", "zonefs_py.fs"))]
assert not loaded, loaded
for module, _ in COMMANDS.values():
    import_module(module)
import zonefs_py.cli.mkzonefs
assert not {"pyfuse3", "trio"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage:")


def test_each_command_is_described_as_it_describes_itself() -> None:
    from click import Context

    from zonefs_py.cli.main import COMMANDS
    from zonefs_py.cli.main import zonefs_py as group

    context = Context(group)
    for name, (_, text) in COMMANDS.items():
        command = group.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.get_short_help_str(100) == text
