"""Errors as a user reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zonefs_py.errors import describe_os_error, naming_errors


def test_an_error_of_a_descriptor_gets_the_name(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="directory") as caught, naming_errors(tmp_path):
            os.read(descriptor, 1)
        assert describe_os_error(caught.value) == f"{tmp_path}: Is a directory"
        with pytest.raises(FileNotFoundError) as missing, naming_errors(tmp_path):
            os.open("none", os.O_RDONLY, dir_fd=descriptor)
        assert describe_os_error(missing.value) == f"{tmp_path}/none: No such file or directory"
        with pytest.raises(FileNotFoundError) as renamed, naming_errors(tmp_path):
            os.rename("none", "other", src_dir_fd=descriptor, dst_dir_fd=descriptor)
        assert describe_os_error(renamed.value) == f"{tmp_path}/none: No such file or directory"
    finally:
        os.close(descriptor)


def test_an_error_with_a_whole_path_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, naming_errors("elsewhere"):
        os.open(tmp_path / "none", os.O_RDONLY)
    assert describe_os_error(caught.value) == f"{tmp_path}/none: No such file or directory"
