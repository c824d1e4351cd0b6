"""Profiles of drives: as their sources have them, devices that can be, and scaled ones too."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zonefs_py.device.description import DeviceDescription, check_description
from zonefs_py.device.profiles import PROFILES, Profile, scale_geometry

MIB = 1 << 20
DOCUMENT = Path(__file__).parents[2] / "docs/devices.md"


@pytest.mark.parametrize(
    ("name", "geometry", "limits"),
    [
        ("hgst-hc620", (256 * MIB, 256 * MIB, 55880, 524, 4096, 256 * MIB), (128, None)),
        ("wd-zn540", (2048 * MIB, 1129316352, 904, 0, 4096, 2048 * MIB), (14, 14)),
        ("samsung-pm1731a", (96 * MIB, 96 * MIB, 40704, 0, 4096, 96 * MIB), (None, 384)),
    ],
)
def test_figures_of_the_sources(name: str, geometry: tuple[int, ...], limits: tuple[int | None, int | None]) -> None:
    profile = PROFILES[name]
    found = profile.geometry
    assert (
        found.zone_size,
        found.zone_capacity,
        found.nr_zones,
        found.nr_conventional,
        found.block_size,
        found.last_zone_size,
    ) == geometry
    assert (profile.max_open_zones, profile.max_active_zones) == limits


def test_the_size_of_a_drive_is_that_of_its_source() -> None:
    # 29297213440 and 3791650816 sectors.
    assert PROFILES["hgst-hc620"].geometry.size == 29297213440 * 512
    assert PROFILES["wd-zn540"].geometry.size == 3791650816 * 512


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_profile_is_a_device_and_documented(profile: Profile) -> None:
    check_description(DeviceDescription(profile.geometry, profile.max_open_zones, profile.max_active_zones))
    text = DOCUMENT.read_text()
    assert f"`{profile.name}`" in text
    assert profile.source in text


profiles = st.sampled_from(list(PROFILES.values()))


@given(profiles, st.integers(2, 100_000))
def test_a_device_of_fewer_zones(profile: Profile, nr_zones: int) -> None:
    scaled = scale_geometry(profile.geometry, nr_zones=nr_zones)
    check_description(DeviceDescription(scaled, profile.max_open_zones, profile.max_active_zones))
    assert scaled.nr_zones == nr_zones
    assert (scaled.nr_conventional > 0) == (profile.geometry.nr_conventional > 0)
    share = profile.geometry.nr_conventional / profile.geometry.nr_zones
    assert scaled.nr_conventional <= max(1, share * nr_zones)
    assert (scaled.zone_size, scaled.zone_capacity) == (profile.geometry.zone_size, profile.geometry.zone_capacity)


@given(profiles, st.integers(2, 1 << 20))
def test_a_device_of_smaller_zones(profile: Profile, blocks: int) -> None:
    scaled = scale_geometry(profile.geometry, zone_size=blocks * 4096)
    check_description(DeviceDescription(scaled, profile.max_open_zones, profile.max_active_zones))
    whole = profile.geometry.zone_capacity == profile.geometry.zone_size
    assert (scaled.zone_capacity == scaled.zone_size) == whole
    assert scaled.last_zone_size == scaled.zone_size


@given(profiles)
def test_nothing_to_scale(profile: Profile) -> None:
    geometry = profile.geometry
    assert scale_geometry(geometry) is geometry
    assert scale_geometry(geometry, nr_zones=geometry.nr_zones, zone_size=geometry.zone_size) == geometry
