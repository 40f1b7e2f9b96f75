"""Tells by stat when a file has changed and come to rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class FileState(NamedTuple):
    """What stat says of a file's content. Two equal states are taken for equal content."""

    device: int
    inode: int
    size: int
    modified: int

    @classmethod
    def of(cls, stat: os.stat_result) -> FileState:
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def look(path: Path) -> FileState | None:
    """The file's state; None when there is none, or none that this user may see."""
    try:
        return FileState.of(path.stat())
    except OSError:
        return None


class WatchedFile:
    """A file that may be replaced at any time, by a rename or, byte by byte, in place.

    A file that is being written changes from look to look, so a change counts only when two looks in a row, a second
    or more apart, saw the same. What was taken is not told again, whatever came of it, until the file changes.
    """

    def __init__(self, path: Path, taken: FileState | None) -> None:
        self.path = path
        self._taken = self._seen = taken

    def changed(self) -> bool:
        """Look once: does the file rest in another state than the one last taken?"""
        state = look(self.path)
        at_rest, self._seen = state == self._seen, state
        return at_rest and state != self._taken

    def take(self) -> None:
        """The state seen last has been read, or found to be unreadable."""
        self._taken = self._seen

    def still(self) -> bool:
        """Whether the file is as it was when it was last looked at: what was read in between is one state's content."""
        return look(self.path) == self._seen
