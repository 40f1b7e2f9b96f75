"""A copy of a file that nobody but this process can reach, and nobody at all can change."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

from shipper.enrich.files import FileState, look
from shipper.errors import ConfigError

_CHUNK = 1 << 20


class PrivateCopy:
    """The content of a file, kept in sealed memory where the system has it and in an unlinked temporary file elsewhere.

    A reader may map it: whatever becomes of the original, no byte of the copy changes and none goes away. `path` can
    be opened by this process while `fd` is open; a child that inherits `fd` can open the same path.
    """

    def __init__(self, source: Path) -> None:
        """Copy. Raises OSError, or ConfigError when the source is no regular file or changes meanwhile."""
        before = source.stat()
        require_file(source, before)
        self.fd = _new_file()
        self._release = weakref.finalize(self, os.close, self.fd)
        with source.open("rb") as original, os.fdopen(self.fd, "wb", closefd=False) as target:
            shutil.copyfileobj(original, target, _CHUNK)
            state = FileState.of(os.fstat(original.fileno()))
        self.size = os.fstat(self.fd).st_size
        if not FileState.of(before) == state == look(source) or self.size != state.size:
            raise ConfigError(
                f"cannot read the GeoIP database {source}: it changed while it was read",
                hint="Write a new database beside the old one and rename it, as geoipupdate does.",
            )
        _seal(self.fd)
        self.state = state

    @property
    def path(self) -> Path:
        return Path(f"/dev/fd/{self.fd}")

    def close(self) -> None:
        """Let go of it. What is mapped stays mapped. A copy that is no longer referred to closes itself."""
        self._release()


def require_file(path: Path, found: os.stat_result) -> None:
    """Raises ConfigError for a directory, a pipe or a device: opening one may block or never end."""
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"cannot read the GeoIP database {path}: not a regular file")


def _new_file() -> int:
    """An empty file without a name."""
    if hasattr(os, "memfd_create"):
        with suppress(OSError):  # an old kernel, or a sandbox that forbids it
            return os.memfd_create("geoip", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _seal(fd: int) -> None:
    """Make the content final. A temporary file knows no seals, and has no name under which it could be changed."""
    if hasattr(fcntl, "F_ADD_SEALS"):
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        with suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
