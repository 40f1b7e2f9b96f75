"""Bytes to document: strict where possible, repaired and marked where not, refused when it is not JSON."""

from __future__ import annotations

import json

import pytest

from shipper.normalize.reading import MAX_DEPTH, read


@pytest.mark.parametrize(
    ("raw", "document", "marks"),
    [
        (b'{"a": 1}', {"a": 1}, ()),
        (b'{"a": "\\u0000"}', {"a": "\x00"}, ()),
        (b'{"a": "\xff"}', {"a": "\ufffd"}, ("invalidUTF8",)),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}, ("byteOrderMark",)),
        (b'{"a": "\\ud800"}', {"a": "\ufffd"}, ("loneSurrogate",)),
        (b'{"a": "\\udc00x\\uD83D"}', {"a": "\ufffdx\ufffd"}, ("loneSurrogate",)),
        (b'{"a": "\\ud83d\\ude00\\ud83d"}', {"a": "\U0001f600\ufffd"}, ("loneSurrogate",)),
        (b'{"\\ud800": "\\\\ud800"}', {"\ufffd": "\\ud800"}, ("loneSurrogate",)),
        (b'{"a": 1e400, "b": "x"}', {"a": float("inf"), "b": "x"}, ("lenientJSON",)),
        (b'{"a": -Infinity}', {"a": float("-inf")}, ("lenientJSON",)),
        (b'{"a": "line\nline\x00"}', {"a": "line\nline\x00"}, ("lenientJSON",)),
        (b'{"a": "\xff\\ud800", "b": 1e400}', {"a": "\ufffd\ufffd", "b": float("inf")}, None),
        (b"7", 7, ()),
    ],
)
def test_read(raw: bytes, document: object, marks: tuple[str, ...] | None) -> None:
    """What is read, and every repair by its name."""
    assert read(raw) == (document, marks if marks is not None else ("invalidUTF8", "loneSurrogate", "lenientJSON"))


def test_integers_are_the_same_on_both_ways() -> None:
    """The slow way does not give other numbers, nor refuses digits by the thousand."""
    digits = b"9" * 400
    fast, _ = read(b'{"a": 12, "b": 18446744073709551616}')
    slow, marks = read(b'{"a": 12, "b": 18446744073709551616, "c": NaN, "d": -' + digits + b"}")
    assert isinstance(slow, dict)
    assert fast == {"a": slow["a"], "b": slow["b"]} == {"a": 12, "b": 2.0**64}
    assert (slow["d"], marks) == (float("-inf"), ("lenientJSON",))


def nested(levels: int) -> bytes:
    return b'{"before": 1, "deep": ' + b'{"x":[' * levels + b'"]}"' + b"]}" * levels + b', "after": "\\"{["}'


def test_nesting_the_fast_parser_takes() -> None:
    """500 levels need no repair."""
    document, marks = read(nested(250))
    assert isinstance(document, dict)
    assert (document["before"], document["after"], marks) == (1, '"{[', ())


def test_nesting_beyond_every_parser() -> None:
    """100,000 levels cost only themselves: the rest of the document is there, and the cut is marked."""
    document, marks = read(nested(50_000))
    assert isinstance(document, dict)
    assert (document["before"], document["after"], marks) == (1, '"{[', ("deepNesting",))
    depth, value = 1, document["deep"]
    while value is not None:
        value = value["x"] if isinstance(value, dict) else value[0]
        depth += 1
    assert depth == MAX_DEPTH


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nothing",
        b'{"a": "',
        b"{}{}",
        b"\x1f\x8b\x08\x00",
        b'{"a":' * 100_000,
        b'{"a": "' + b'\\"' * 100_000,
        b"}" * 5_000,
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_not_json(raw: bytes) -> None:
    """What no repair makes JSON is a ValueError, whatever the parser raised, and takes no long time."""
    with pytest.raises(ValueError):  # noqa: PT011 - the text is the parser's
        read(raw)


def test_a_parser_at_its_stack_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Running out of stack is one more way of not being readable."""

    def overflow(*_: object, **__: object) -> object:
        raise RecursionError

    monkeypatch.setattr(json, "loads", overflow)
    with pytest.raises(ValueError, match="nested too deeply"):
        read(b"[NaN]")
