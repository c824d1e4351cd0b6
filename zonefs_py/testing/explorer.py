"""Visits the states that a power cut can leave of a workload, in this process: nothing is mounted with FUSE.

::

    from zonefs_py.testing.explorer import explore
    from zonefs_py.testing.image import open_image, take_image
    from zonefs_py.testing.recorder import RecordingDevice

    base = take_image(device)                       # formatted
    recorder = RecordingDevice(open_image(base))
    with Filesystem(recorder) as fs:
        ...                                         # the workload
    report = explore(base, recorder.calls, check)   # check(state, device) raises AssertionError if something is wrong
    assert not report.failures
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from zonefs_py.device.emulated import EmulatedDevice
from zonefs_py.testing.calls import Call
from zonefs_py.testing.crash_states import CrashState, CrashStates
from zonefs_py.testing.image import DeviceImage, open_image

DEFAULT_LIMIT = 256
"""States of one crash point that are visited; of more, this many are drawn."""

Check = Callable[[CrashState, EmulatedDevice], None]
"""Looks at a state and a device that holds it, which is its own to mount and change. Raises if anything is wrong."""


@dataclass(frozen=True)
class Failure:
    """A state that did not pass, and what the check raised."""

    state: CrashState
    error: Exception

    def __str__(self) -> str:
        return f"state {self.state.id} ({self.state.kept or 'all was flushed'}): {self.error!r}"


@dataclass
class Report:
    """What was visited, and what was found."""

    points: int = 0
    states: int = 0
    sampled_points: int = 0
    """Crash points of which not every state was visited."""
    failures: list[Failure] = field(default_factory=list)


def explore(
    base: DeviceImage,
    calls: Sequence[Call],
    check: Check,
    *,
    first: int = 0,
    limit: int = DEFAULT_LIMIT,
    seed: int = 0,
    max_failures: int = 1,
) -> Report:
    """Let *check* see the states that a power cut can leave of *calls* on a device that held *base*.

    Power goes during each call from number *first* on, and after all. Of each crash point all states are visited, or
    if there are more than *limit*, so many, drawn by *seed*. Ends early after *max_failures*.
    """
    report = Report()
    for point in CrashStates(base, calls):
        if point.number < first:
            continue
        report.points += 1
        report.sampled_points += point.count > limit
        for outcome in point.outcomes(limit, seed):
            state = point.state(outcome)
            report.states += 1
            try:
                check(state, open_image(state.image))
            except Exception as exc:  # whatever a check stumbles over is what was looked for
                report.failures.append(Failure(state, exc))
                if len(report.failures) >= max_failures:
                    return report
    return report
