"""Private copies: the bytes of a file, out of everybody's reach."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest

from shipper.enrich.files import look
from shipper.enrich.geoip.copies import PrivateCopy
from shipper.errors import ConfigError

CONTENT = bytes(range(256)) * 9000


def forbidden(*_: object) -> int:
    raise PermissionError("no memfd in this sandbox")


@pytest.fixture(params=["memory", "temporary file", "no such call"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the copy is: in memory, or in a temporary file, since memfd_create is refused or does not exist."""
    name: str = request.param
    if name == "temporary file":
        monkeypatch.setattr(os, "memfd_create", forbidden, raising=False)
    elif name == "no such call":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    return name


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def test_a_copy_keeps_its_bytes_whatever_becomes_of_the_file(kind: str, source: Path) -> None:
    """Overwritten, shortened and removed in place: the copy is as it was, and so is what it says of the file."""
    state = look(source)
    copy = PrivateCopy(source)
    source.write_bytes(b"other")
    assert copy.path.read_bytes() == CONTENT
    source.unlink()
    assert copy.path.read_bytes() == CONTENT
    assert (copy.size, copy.state) == (len(CONTENT), state)


def test_nobody_can_change_the_copy_in_memory(source: Path) -> None:
    """It is sealed: not even its owner can write to it, shorten it or lengthen it."""
    copy = PrivateCopy(source)
    if not hasattr(os, "memfd_create"):
        pytest.skip("no memory files here")
    for change in (lambda: os.pwrite(copy.fd, b"x", 0), lambda: os.ftruncate(copy.fd, 0)):
        with pytest.raises(PermissionError):
            change()
    assert copy.path.read_bytes() == CONTENT


def test_the_temporary_file_has_no_name(kind: str, source: Path, tmp_path: Path) -> None:
    copy = PrivateCopy(source)
    assert os.fstat(copy.fd).st_nlink == 0
    assert os.listdir(tmp_path) == ["source"]  # noqa: PTH208


def test_a_copy_gives_its_descriptor_back(kind: str, source: Path) -> None:
    """When it is closed, also twice, and when it is forgotten."""
    copy = PrivateCopy(source)
    fd = copy.fd
    copy.close()
    copy.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    fd = PrivateCopy(source).fd
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def shorten(path: Path) -> None:
    path.write_bytes(CONTENT[:100])


def rewrite(path: Path) -> None:
    path.write_bytes(bytes(len(CONTENT)))
    os.utime(path, (1, 1))


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(CONTENT)
    path.with_name("new").rename(path)


@pytest.mark.parametrize("change", [shorten, rewrite, replace, Path.unlink])
def test_a_file_that_changes_while_it_is_copied_is_refused(
    monkeypatch: pytest.MonkeyPatch, source: Path, change: Callable[[Path], None]
) -> None:
    """Half of one file and half of another is no database; the error says how to do it better."""

    def copy(original: IO[bytes], target: IO[bytes], length: int) -> None:
        target.write(original.read(1000))
        change(source)
        shutil.copyfileobj(original, target, length)

    with monkeypatch.context() as patched:
        patched.setattr("shipper.enrich.geoip.copies.shutil", type("Shutil", (), {"copyfileobj": staticmethod(copy)}))
        with pytest.raises(ConfigError) as caught:
            PrivateCopy(source)
    assert str(caught.value) == f"cannot read the GeoIP database {source}: it changed while it was read"
    assert "rename" in caught.value.hint


def test_only_a_regular_file_is_opened(tmp_path: Path) -> None:
    """A pipe that nobody writes to would never end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="not a regular file"):
            PrivateCopy(path)


def test_without_seals_it_is_a_copy_all_the_same(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    """Elsewhere than on Linux there are none."""
    empty: Any = type("Fcntl", (), {})
    monkeypatch.setattr("shipper.enrich.geoip.copies.fcntl", empty)
    assert PrivateCopy(source).path.read_bytes() == CONTENT
