"""Errors as a user reads them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from zonefs_py.errors import describe_os_error, from_os_error, naming_errors


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


@pytest.mark.parametrize(
    "name",
    "EIO ENOSPC ETOOMANYREFS EOVERFLOW ETIMEDOUT ENOLINK EREMOTEIO EBADE ENODATA EILSEQ ENODEV".split(),
)
def test_what_the_block_layer_says_of_a_failed_request_is_passed_on(name: str) -> None:
    number = getattr(errno, name)
    error = from_os_error(OSError(number, os.strerror(number)), "zone 1: read")
    assert (error.errno, error.errno_name) == (number, name)
    assert str(error) == f"zone 1: read: {os.strerror(number)}"


def test_other_words_of_the_host_are_an_io_error() -> None:
    """Above all those by which the kernel would go on by itself, or ask again."""
    for number in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EAGAIN, errno.EINTR, errno.EBADF):
        assert from_os_error(OSError(number, "no"), "flush").errno_name == "EIO"
