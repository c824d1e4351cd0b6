"""What the end of a Copy command means: every status, at every range, and no status without a meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.device.nvme_status import (
    STATUS_RULES,
    UNKNOWN_STATUS,
    Blame,
    Completion,
    Status,
    copied_ranges,
    copy_error,
    is_success,
    status_rule,
)
from zonefs_py.errors import ActiveZonesExhausted, DeviceError, HostFull, OpenZonesExhausted
from zonefs_py.zone import CopyRange

RANGES = [CopyRange(0, 1000, 10), CopyRange(500, 1010, 20), CopyRange(900, 1030, 30)]

EXPECTED = {
    # code: error, bytes known to be copied when dword 0 is 2, the source is to blame
    0x001: (DeviceError, 0, False),
    0x002: (DeviceError, 0, False),
    0x004: (DeviceError, 0, False),
    0x006: (DeviceError, 30, False),
    0x007: (DeviceError, 0, False),
    0x00B: (DeviceError, 0, False),
    0x080: (DeviceError, 30, False),
    0x081: (HostFull, 30, False),
    0x10A: (DeviceError, 0, False),
    0x183: (DeviceError, 30, False),
    0x1B8: (DeviceError, 30, False),
    0x1B9: (DeviceError, 30, False),
    0x1BA: (DeviceError, 30, False),
    0x1BB: (DeviceError, 30, False),
    0x1BC: (DeviceError, 30, False),
    0x1BD: (ActiveZonesExhausted, 30, False),
    0x1BE: (OpenZonesExhausted, 30, False),
    0x1BF: (DeviceError, 30, False),
    0x280: (DeviceError, 30, False),
    0x281: (DeviceError, 30, True),
    0x287: (DeviceError, 30, True),
    0x371: (DeviceError, 0, False),
    # Nobody knows these.
    0x17F: (DeviceError, 0, False),
    0x2FF: (DeviceError, 0, False),
    0x7C1: (DeviceError, 0, False),
}


@pytest.mark.parametrize("code", EXPECTED)
@pytest.mark.parametrize("more", [0, 0x4000, 0x5800], ids=["plain", "do-not-retry", "retry-delay"])
def test_statuses(code: int, more: int) -> None:
    kind, completed, source_failed = EXPECTED[code]
    error = copy_error(Completion(code | more, 2), RANGES, "zone 3: copy")
    assert type(error) is kind
    assert error.completed == completed
    assert error.source_failed is source_failed
    assert str(error).startswith(f"zone 3: copy: range {2 if completed else 0} of 3 failed: ")
    assert f"(NVMe status {code:#05x})" in str(error)


@given(st.integers(0, 0x7FFF), st.integers(0, 0xFFFFFFFF))
def test_any_completion_means_something(status: int, result: int) -> None:
    completion = Completion(status, result)
    done = copied_ranges(completion, len(RANGES))
    if is_success(status):
        assert done == 3
        return
    # A failed command has not copied all: a dword 0 that says so is not believed.
    assert done == (result if result < 3 and status_rule(status).progress else 0)
    error = copy_error(completion, RANGES, "copy")
    assert error.completed == [0, 10, 30][done]
    assert status_rule(status).name in str(error)
    if status & 0x7FF not in STATUS_RULES:
        assert status_rule(status) is UNKNOWN_STATUS
        assert (error.completed, error.source_failed) == (0, False)


@pytest.mark.parametrize("result", [0, 1, 2, 3, 4, 0xFFFFFFFF])
def test_dword_0_is_the_first_range_that_was_not_copied(result: int) -> None:
    assert copied_ranges(Completion(0x4281, result), 3) == (result if result < 3 else 0)
    assert copied_ranges(Completion(0, result), 3) == 3


def test_our_own_statuses_are_all_known() -> None:
    for status in Status:
        assert is_success(status) == (status is Status.SUCCESS)
        assert (status_rule(status) is UNKNOWN_STATUS) == (status is Status.SUCCESS)


def test_only_a_zone_that_is_offline_may_be_at_either_end() -> None:
    assert [code for code, rule in STATUS_RULES.items() if rule.blame is Blame.EITHER] == [0x1BB]
