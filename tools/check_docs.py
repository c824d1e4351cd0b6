"""Check that the documents tell the truth.

Links lead somewhere; every file, test, command and option that is mentioned exists; README lists all commands;
``python`` examples run; ``console`` examples are run in a shell, one session a document, and print what is shown
(``...`` in a line stands for any text, on a line of its own for any lines). Files beside a
document below docs/examples are there when its examples run. Examples fenced as ``sh`` are for reading.

With ``--show`` the real output of every console example is printed, to be pasted.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "logs/results"
PROGRAMS = Path(sys.executable).parent

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
COMMAND = re.compile(r"(?<![\w\".-])zonefs-py ([a-z][a-z-]*)([^|;&`\n]*)")
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]+|-[a-zA-Z])(?![\w-])")
PATH = re.compile(
    r"^((?:docs|tests|tools|zonefs_py|\.ci)/[\w./-]*|[A-Z]+\.md|LICENSE|tox\.ini|pyproject\.toml)(?:::(\w+))?$"
)
END_OF_COMMAND = "--end-of-command--"
TIME_LIMIT = 300
"""Seconds for everything; examples take a few."""


@dataclass
class Outcome:
    """What was found, for people and for tools/test."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)

    def check(self, holds: bool, failure: str) -> None:
        """Count one check."""
        if holds:
            self.passed += 1
        else:
            self.failures.append(failure)


def documents() -> list[Path]:
    """Every document of the project."""
    return sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))


def slug(heading: str) -> str:
    """The anchor that a heading gets on code hosting sites."""
    kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return kept.strip().replace(" ", "-")


def without_fences(text: str) -> str:
    """Only the prose."""
    return FENCE.sub("", text)


def check_links(document: Path, text: str, outcome: Outcome) -> None:
    """Relative links name a file, and a heading in it."""
    for link in LINK.findall(without_fences(text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        where = f"{document.relative_to(ROOT)}: link {link}"
        outcome.check(target.exists(), f"{where}: there is no such file")
        if anchor and target.exists():
            anchors = {slug(heading) for heading in HEADING.findall(without_fences(target.read_text()))}
            outcome.check(anchor in anchors, f"{where}: there is no such heading")


def check_paths(document: Path, text: str, outcome: Outcome) -> None:
    """Files and tests that are mentioned as code exist."""
    for code in CODE.findall(without_fences(text)):
        if not (match := PATH.match(code)):
            continue
        path, test = ROOT / match[1], match[2]
        where = f"{document.relative_to(ROOT)}: `{code}`"
        outcome.check(path.exists(), f"{where}: there is no such file")
        if test and path.exists():
            defined = re.search(rf"^\s*(?:async )?(?:def|class) {test}\b", path.read_text(), re.MULTILINE)
            outcome.check(defined is not None, f"{where}: there is no such test")


@functools.cache
def help_of(*command: str) -> str | None:
    """The help of a command of ours; None if there is no such command."""
    done = subprocess.run(
        [PROGRAMS / "zonefs-py", *command, "--help"], capture_output=True, text=True, check=False, env=environment()
    )
    return done.stdout if done.returncode == 0 else None


def commands() -> list[str]:
    """The commands that ``zonefs-py --help`` lists."""
    _, _, listed = (help_of() or "").partition("Commands:\n")
    return re.findall(r"^  ([\w-]+)", listed, re.MULTILINE)


def check_commands(document: Path, text: str, outcome: Outcome) -> None:
    """Commands and their long and short options exist."""
    spans = CODE.findall(without_fences(text)) + [body for kind, body in FENCE.findall(text) if kind != "python"]
    for span in spans:
        for name, rest in COMMAND.findall(re.sub(r"\$\([^)]*\)", "", span)):
            where = f"{document.relative_to(ROOT)}: zonefs-py {name}"
            words = [name]
            if name in ("zone", "snapshot") and (action := re.match(r"\s+([a-z]+)\b", rest)):
                words.append(action[1])
            if name in ("ctl", "fault") and (action := re.match(r"\s+(\S+)\s+([a-z][a-z-]*)", rest)):
                words += [action[1], action[2]]
            rest, _, _ = rest.partition(" -- ")  # what follows is for another program
            helped = help_of(*words) if name in commands() else None
            outcome.check(helped is not None, f"{where}{rest}: there is no such command")
            for option in OPTION.findall(rest) if helped else ():
                known = re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", helped or "")
                outcome.check(known is not None, f"{where}: there is no option {option}")


def check_command_list(outcome: Outcome) -> None:
    """README has a table row for each command and for no other."""
    rows = re.findall(r"^\| `zonefs-py ([\w-]+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    outcome.check(sorted(set(rows)) == sorted(commands()), f"README.md lists {rows}, zonefs-py has {commands()}")


def check_rooms(outcome: Outcome) -> None:
    """The architecture page names every package of ours."""
    text = (ROOT / "docs/architecture.md").read_text()
    for package in sorted((ROOT / "zonefs_py").glob("*/__init__.py")):
        room = f"{package.parent.name}/"
        outcome.check(room in text, f"docs/architecture.md does not mention {room}")


def environment() -> dict[str, str]:
    """The environment of examples: our programs first, English messages, no colours, a fixed width."""
    # With CI or BUILD_NUMBER pytest prints more than it does for a user.
    unwanted = ("PYTHONPATH", "FORCE_COLOR", "CI", "BUILD_NUMBER")
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    path = f"{PROGRAMS}:{kept.get('PATH', '')}:/usr/sbin:/sbin"
    return {**kept, "PATH": path, "LC_ALL": "C.UTF-8", "COLUMNS": "120", "NO_COLOR": "1"}


def run_python(document: Path, source: str, work: Path, outcome: Outcome) -> None:
    """Run one Python example; that it ends without an exception is the check."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=work,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    first = source.strip().splitlines()[0]
    outcome.check(done.returncode == 0, f"{document.relative_to(ROOT)}: the example '{first}' fails: {last}")


def steps(block: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console example (``$ ``, continued by ``> ``) and the lines shown after each."""
    command: list[str] = []
    shown: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            if command:
                yield "\n".join(command), shown
            command, shown = [line[2:]], []
        elif line.startswith("> ") and command and not shown:
            command.append(line[2:])
        else:
            shown.append(line.rstrip())
    if command:
        yield "\n".join(command), shown


def matches(shown: list[str], real: list[str]) -> bool:
    """Whether *real* output is what the document shows."""
    pattern = ""
    for line in shown:
        if line == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part) for part in line.split("...")) + r"\n"
    return re.fullmatch(pattern, "".join(f"{line.expandtabs().rstrip()}\n" for line in real)) is not None


class Session:
    """A shell in which the console examples of one document run."""

    def __init__(self, work: Path) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=work,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> list[str]:
        """The lines that *command* prints, on both outputs."""
        assert self._shell.stdin
        assert self._shell.stdout
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '%s\\n' {END_OF_COMMAND}\n")
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in self._shell.stdout:
            text, end, _ = line.rstrip("\n").partition(END_OF_COMMAND)
            if end:
                return [*lines, text] if text else lines
            lines.append(text)
        raise EOFError(f"the shell ended during: {command}")

    def close(self) -> None:
        """End the shell."""
        assert self._shell.stdin
        assert self._shell.stdout
        self._shell.stdin.close()
        self._shell.wait()
        self._shell.stdout.close()


def unmount_below(directory: Path) -> None:
    """Unmount what an example left mounted."""
    # Others may have mounts whose names are no text.
    for line in Path("/proc/self/mounts").read_bytes().splitlines():
        mount_point = os.fsdecode(line.split(b" ")[1])
        if mount_point.startswith(f"{directory}/"):
            subprocess.run(["fusermount3", "-u", "-z", mount_point], check=False)


def run_console(document: Path, blocks: list[str], work: Path, outcome: Outcome, show: bool) -> None:
    """Run the console examples of *document* one after the other."""
    session = Session(work)
    try:
        for block in blocks:
            for command, shown in steps(block):
                real = session.run(command)
                if show:
                    print(f"$ {command}", *real, sep="\n")
                printed = "\n    ".join(real)
                outcome.check(
                    matches(shown, real), f"{document.relative_to(ROOT)}: $ {command}\n  really prints\n    {printed}"
                )
    finally:
        session.close()


def check_examples(document: Path, text: str, outcome: Outcome, show: bool) -> None:
    """Run the examples of *document* in a directory of their own."""
    examples = FENCE.findall(text)
    console = [body for kind, body in examples if kind == "console"]
    for kind, body in examples:
        if kind == "python":
            with tempfile.TemporaryDirectory(prefix="zonefs-py-docs-") as directory:
                run_python(document, body, Path(directory), outcome)
    work = Path(tempfile.mkdtemp(prefix="zonefs-py-docs-"))
    if ROOT / "docs/examples" in document.parents:
        shutil.copytree(document.parent, work, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    try:
        if console and not os.access("/dev/fuse", os.R_OK | os.W_OK):
            outcome.skips.append(f"{document.relative_to(ROOT)}: console examples: /dev/fuse cannot be opened")
        elif console:
            run_console(document, console, work, outcome, show)
    finally:
        unmount_below(work)
        shutil.rmtree(work)


def report(outcome: Outcome) -> int:
    """Print the outcome and leave it for tools/test; return the exit status."""
    for reason in outcome.skips:
        print(f"skipped: {reason}")
    for failure in outcome.failures:
        print(f"FAILED {failure}")
    print(f"{outcome.passed} checks passed, {len(outcome.failures)} failed, {len(outcome.skips)} skipped")
    RESULTS.mkdir(parents=True, exist_ok=True)
    lines = [f"{outcome.passed} {len(outcome.failures)} {len(outcome.skips)}"]
    lines += [f"skip: {reason}" for reason in outcome.skips]
    lines += [f"fail: {failure.splitlines()[0]}" for failure in outcome.failures]
    (RESULTS / "docs.count").write_text("\n".join(lines) + "\n")
    return 1 if outcome.failures else 0


def out_of_time(_number: int, _frame: object) -> None:
    """A command that waits for ever must not keep a CI machine."""
    raise TimeoutError(f"the examples take more than {TIME_LIMIT} seconds")


def main() -> int:
    """Check all documents; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", action="store_true", help="print the real output of console examples")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(TIME_LIMIT)
    outcome = Outcome()
    for document in documents():
        text = document.read_text()
        check_links(document, text, outcome)
        check_paths(document, text, outcome)
        check_commands(document, text, outcome)
        check_examples(document, text, outcome, options.show)
    check_command_list(outcome)
    check_rooms(outcome)
    return report(outcome)


if __name__ == "__main__":
    sys.exit(main())
