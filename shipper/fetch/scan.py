"""Finds where JSON values begin and end, without judging what is inside them.

The slow path for bytes that a strict parser refuses: a lone surrogate escape, a raw control character, thousands of
nested levels. Only quotes and brackets are looked at, nothing recurses, and the time is linear in the bytes read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

BOM = b"\xef\xbb\xbf"

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_SPACE = re.compile(rb"[ \t\r\n]*+")
_SCALAR = re.compile(rb'[^][{}",:\s]++')
_QUOTED = re.compile(_STRING, re.DOTALL)
# The last alternative takes the quote of a string that never ends.
_STRUCTURE = re.compile(_STRING + rb'|[][{}"]', re.DOTALL)
_CLOSER = {ord("{"): ord("}"), ord("["): ord("]")}


class IncompleteJSONError(ValueError):
    """The bytes end before their JSON does, or were never JSON. Fetching them again may help.

    A signal inside the fetch stage: it never leaves it.
    """


def skip_space(data: bytes, at: int) -> int:
    """The first position from `at` on that is not JSON white space."""
    match = _SPACE.match(data, at)
    return match.end() if match else at


def value_end(data: bytes, at: int) -> int:
    """The position after the value that begins at `at`. Raises IncompleteJSONError when it has no end."""
    first = data[at : at + 1]
    if first in (b"{", b"["):
        return _container_end(data, at)
    match = (_QUOTED if first == b'"' else _SCALAR).match(data, at)
    if match is None:
        raise IncompleteJSONError(f"expected a JSON value at byte {at}")
    return match.end()


def _container_end(data: bytes, at: int) -> int:
    expected = bytearray()
    for match in _STRUCTURE.finditer(data, at):
        start, end = match.span()
        token = data[start]
        if token in _CLOSER:
            expected.append(_CLOSER[token])
        elif token != ord('"'):
            if expected.pop() != token:
                raise IncompleteJSONError(f"a bracket at byte {start} closes nothing that is open")
            if not expected:
                return end
        elif end - start == 1:
            break
    raise IncompleteJSONError(f"the JSON ends at byte {len(data)}, before the value that began at byte {at}")


def elements(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Start and end of each element of the array that begins at `at`."""
    at = skip_space(data, at + 1)
    if data[at : at + 1] == b"]":
        return
    while True:
        end = value_end(data, at)
        yield at, end
        at = skip_space(data, end)
        if data[at : at + 1] == b"]":
            return
        at = _after(data, at, b",")


def members(data: bytes, at: int) -> Iterator[tuple[bytes, int, int]]:
    """Key as written (with its quotes), start and end of the value, for each member of the object at `at`."""
    at = skip_space(data, at + 1)
    if data[at : at + 1] == b"}":
        return
    while True:
        key = _QUOTED.match(data, at)
        if key is None:
            raise IncompleteJSONError(f"expected a key at byte {at}")
        start = _after(data, skip_space(data, key.end()), b":")
        end = value_end(data, start)
        yield key[0], start, end
        at = skip_space(data, end)
        if data[at : at + 1] == b"}":
            return
        at = _after(data, at, b",")


def member(data: bytes, key: bytes) -> bytes:
    """The bytes of one top-level member of an object, b"" when there is none. `key` is written with its quotes."""
    if data[:1] != b"{":
        return b""
    return next((data[start:end] for name, start, end in members(data, 0) if name == key), b"")


def documents(data: bytes) -> Iterator[bytes]:
    """The JSON values that follow one another in `data`, with or without white space between; a BOM is skipped."""
    at = skip_space(data, len(BOM) if data.startswith(BOM) else 0)
    while at < len(data):
        end = value_end(data, at)
        yield data[at:end]
        at = skip_space(data, end)


def _after(data: bytes, at: int, mark: bytes) -> int:
    if data[at : at + 1] != mark:
        raise IncompleteJSONError(f"expected {mark.decode()!r} at byte {at}")
    return skip_space(data, at + 1)
