"""Tests of devices. Asserts in the conformance suite are explained as those of a test module are."""

import pytest

pytest.register_assert_rewrite("tests.device.conformance")
