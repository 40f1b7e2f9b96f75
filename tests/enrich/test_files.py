"""A watched file: what counts as a change."""

from __future__ import annotations

import os
from pathlib import Path

from shipper.enrich.files import WatchedFile, look


def watched(path: Path, text: str = "one") -> WatchedFile:
    path.write_text(text, encoding="utf-8")
    return WatchedFile(path, look(path))


def rewrite(path: Path, text: str, at: int) -> None:
    """Write in place; `at` is the time of the write, in seconds."""
    path.write_text(text, encoding="utf-8")
    os.utime(path, (at, at))


def test_a_change_is_told_when_two_looks_saw_the_same(tmp_path: Path) -> None:
    """Not at the first look, since the writer may not be done; then at every look, until it is taken."""
    file = watched(tmp_path / "f")
    assert [file.changed(), file.changed()] == [False, False]
    rewrite(file.path, "two", 1)
    assert [file.changed(), file.changed(), file.changed()] == [False, True, True]
    file.take()
    assert [file.changed(), file.changed()] == [False, False]


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    """Every look sees another state: none is told."""
    file = watched(tmp_path / "f")
    seen = []
    for second in range(1, 6):
        rewrite(file.path, "x" * second, second)
        seen.append(file.changed())
    assert seen == [False] * 5
    assert file.changed()


def test_content_of_the_same_size_is_a_change_and_so_is_another_file_of_the_same_age(tmp_path: Path) -> None:
    """Time of change, size and inode each count."""
    file = watched(tmp_path / "f")
    rewrite(file.path, "two", 1)
    assert [file.changed(), file.changed()] == [False, True]
    file.take()
    other = tmp_path / "other"
    rewrite(other, "six", 1)
    other.rename(file.path)
    assert [file.changed(), file.changed()] == [False, True]


def test_a_file_that_is_gone_is_told_once_and_its_return_as_well(tmp_path: Path) -> None:
    file = watched(tmp_path / "f")
    away = file.path.rename(tmp_path / "away")
    assert [file.changed(), file.changed()] == [False, True]
    file.take()
    assert not file.changed()
    away.rename(file.path)
    assert [file.changed(), file.changed()] == [False, True]


def test_still_is_about_the_last_look(tmp_path: Path) -> None:
    """What was read between a look and `still` is the content of one state."""
    file = watched(tmp_path / "f")
    rewrite(file.path, "two", 1)
    file.changed()
    assert file.still()
    rewrite(file.path, "three", 2)
    assert not file.still()


def test_what_cannot_be_seen_has_no_state(tmp_path: Path) -> None:
    assert look(tmp_path / "none") is None
    assert look(watched(tmp_path / "f").path / "below a file") is None
