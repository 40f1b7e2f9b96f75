"""Reads an event's bytes as JSON: strictly and fast, or repaired when the fast parser refuses them.

The repair changes only what is read out of the bytes; `rawLog` keeps the bytes. Each repair leaves a mark:

    invalidUTF8    bytes that are not UTF-8 were read as U+FFFD
    byteOrderMark  a byte order mark stood before the document
    loneSurrogate  half a surrogate pair (`\\ud800`) was read as U+FFFD
    deepNesting    what lies deeper than 200 levels was read as null
    lenientJSON    a number or a control character that JSON does not allow (NaN, 1e400, a raw line end in a string)
"""

from __future__ import annotations

import json
import re

import orjson

# orjson takes 1,024 levels. A document it refuses is cut well below the standard library's own limit, which depends on
# the Python version and on how deep the caller's stack is.
MAX_DEPTH = 200

# A whole string, or one character that matters outside of strings. Possessive, so that no input makes it backtrack.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\]]', re.DOTALL)
# A surrogate pair, half a pair, or any other escape: the first and the last are only matched to be stepped over.
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.",
    re.DOTALL,
)


def read(raw: bytes) -> tuple[object, tuple[str, ...]]:
    """The document and the marks of what had to be repaired. Raises ValueError when it is not JSON at all.

    Every string in the document can be encoded as UTF-8. Integers over 64 bits may come as floats.
    """
    try:
        return orjson.loads(raw), ()
    except orjson.JSONDecodeError:
        return _repair(raw)


def _repair(raw: bytes) -> tuple[object, tuple[str, ...]]:
    marks = []
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("utf-8", errors="replace")
        marks.append("invalidUTF8")
    if text.startswith("\ufeff"):
        text = text[1:]
        marks.append("byteOrderMark")
    for mark, change in (("loneSurrogate", _mend_surrogates), ("deepNesting", _prune)):
        changed = change(text)
        if changed != text:
            text = changed
            marks.append(mark)
    try:
        return orjson.loads(text), tuple(marks)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text, strict=False, parse_int=_integer), (*marks, "lenientJSON")
    except RecursionError as error:
        raise ValueError("nested too deeply to read") from error


def _integer(digits: str) -> int | float:
    # As orjson does; int() on thousands of digits is slow and Python refuses it.
    return int(digits) if len(digits) <= 18 else float(digits)


def _mend_surrogates(text: str) -> str:
    return _ESCAPE.sub(lambda found: "\\ufffd" if found["half"] else found[0], text)


def _prune(text: str) -> str:
    """Put null in the place of every array and object deeper than MAX_DEPTH. Unbalanced text is left as it is."""
    depth, kept, start = 0, [], 0
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if first in "{[":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept.append(text[start : token.start()])
        elif first in "}]":
            if depth == MAX_DEPTH + 1:
                kept.append("null")
                start = token.end()
            depth -= 1
        elif token.end() - token.start() == 1:
            return text  # a string without an end: each quote after this one would be searched for its end
    if depth or not kept:
        return text
    kept.append(text[start:])
    return "".join(kept)
