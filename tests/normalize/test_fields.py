"""The typed getters: what each takes, and what it refuses."""

from __future__ import annotations

import pytest

from shipper.normalize.countries import ALPHA2, ALPHA2_OF_ALPHA3, alpha2
from shipper.normalize.fields import as_number, canonical_ip, degrees, is_email, table, text, timestamp


def test_text_and_table_note_what_is_of_another_type() -> None:
    """Absent and null are defaults without a word; another type is the default and its path."""
    holder: dict[str, object] = {"s": "x", "o": {"k": 1}, "null": None, "n": 1, "b": False, "l": []}
    wrong: list[str] = []
    assert [text(holder, key, key, wrong) for key in ("s", "null", "absent")] == ["x", "", ""]
    assert [table(holder, key, key, wrong) for key in ("o", "null", "absent")] == [{"k": 1}, {}, {}]
    assert wrong == []
    assert [text(holder, key, f"text.{key}", wrong) for key in ("o", "n", "b", "l")] == [""] * 4
    assert [table(holder, key, f"table.{key}", wrong) for key in ("s", "n", "b", "l")] == [{}] * 4
    assert wrong == ["text.o", "text.n", "text.b", "text.l", "table.s", "table.n", "table.b", "table.l"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1, 1),
        (2**32 - 1, 2**32 - 1),
        (1760009000.0, 1760009000),
        ("1760009000", 1760009000),
        ("1760009000.0", 1760009000),
        ("1.760009e9", 1760009000),
        (0, 0),
        ("0", 0),
        (-1, 0),
        (2**32, 0),
        (1e30, 0),
        (float("inf"), 0),
        (float("nan"), 0),
        (1760009000.5, 0),
        ("1760009000.5", 0),
        ("", 0),
        (" 1760009000", 0),
        ("1_760_009_000", 0),
        ("inf", 0),
        ("1e999", 0),
        ("--1", 0),
        ("9" * 5000, 0),
        ("١٧٦٠٠٠٩٠٠٠", 0),
        ("2026-01-01T00:00:00Z", 0),
        (True, 0),
        (None, 0),
        ([1], 0),
    ],
)
def test_timestamp(value: object, seconds: int) -> None:
    """A whole number of seconds after 1970 that the column can hold, in any of three spellings; nothing is rounded."""
    assert timestamp(value) == seconds


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("16509", 16509),
        ("AS16509", 16509),
        ("as16509", 16509),
        ("", 0),
        (16509, 16509),
        (16509.0, 16509),
        (2**32 - 1, 2**32 - 1),
        ("4294967295", 2**32 - 1),
        ("4294967296", None),
        ("99999999999", None),
        (2**32, None),
        (1.5, None),
        (1.8446744073709552e19, None),
        (-1, None),
        ("AS", None),
        ("-5", None),
        ("Amazon", None),
        (True, None),
        ([16509], None),
    ],
)
def test_as_number(value: object, number: int | None) -> None:
    """Every spelling the API was seen to use; what does not fit 32 bits is none."""
    assert as_number(value) == number


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("30.2672", 30.2672),
        (" -90 ", -90.0),
        (90, 90.0),
        (0.5, 0.5),
        ("90.01", None),
        (-91, None),
        (2**70, None),
        (float("nan"), None),
        ("nan", None),
        ("1e999", None),
        ("", None),
        ("3_0", None),
        ("north", None),
        ("1.2.3", None),
        (True, None),
        ({}, None),
    ],
)
def test_degrees(value: object, expected: float | None) -> None:
    """Text or number within the limit, finite."""
    assert degrees(value, 90) == expected


@pytest.mark.parametrize(
    ("address", "canonical"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("0.0.0.0", "0.0.0.0"),  # noqa: S104 - an address to read, not to listen on
        ("2001:DB8:0:0::0001", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("8.8.8.8%eth0", ""),
        ("", ""),
        ("010.8.8.8", ""),
        ("192.0.2.1:443", ""),
        ("192.0.2.0/24", ""),
        (" 192.0.2.1", ""),
        ("192.0.2", ""),
        ("localhost", ""),
        ("1" * 100_000, ""),
    ],
)
def test_canonical_ip(address: str, canonical: str) -> None:
    """One text per address, and none for what is not an address alone."""
    assert canonical_ip(address) == canonical


@pytest.mark.parametrize(
    ("candidate", "answer"),
    [
        ("ada@corp.example", True),
        ("ada+audit@corp.example", True),
        ("ada@intranet", True),
        ("jürgen@bücher.example", True),
        ("Ada Smith@corp.example", False),
        ("Ada Smith", False),
        ("", False),
        ("@corp.example", False),
        ("ada@", False),
        ("ada@b@corp.example", False),
        ("ada\t@corp.example", False),
        ("ada\x00@corp.example", False),
        ("ada@corp.example\n", False),
        ("Ada <ada@corp.example>", False),
        ("a" * 250 + "@corp.example", False),
    ],
)
def test_is_email(candidate: str, answer: bool) -> None:  # noqa: FBT001 - the expected answer
    """One @ with something on both sides, nothing blank: a display name is no address."""
    assert is_email(candidate) is answer


def test_countries() -> None:
    """Alpha-2 and alpha-3 in either case; what is no country is none."""
    assert [alpha2(code) for code in ("US", "USA", "us", "usa", " DEU ", "XKX")] == ["US", "US", "US", "US", "DE", "XK"]
    assert [alpha2(code) for code in ("", "ZZ", "ZZZ", "Texas", "840", "U")] == [""] * 6


def test_country_table_is_complete() -> None:
    """ISO 3166-1 has 249 codes, each once on either side; with Kosovo's that is 250."""
    assert len(ALPHA2_OF_ALPHA3) == len(ALPHA2) == 250
    assert {(len(three), len(two)) for three, two in ALPHA2_OF_ALPHA3.items()} == {(3, 2)}
    surprising = {
        "AUT": "AT",
        "CHE": "CH",
        "CHN": "CN",
        "DNK": "DK",
        "EST": "EE",
        "IRL": "IE",
        "PRK": "KP",
        "UKR": "UA",
    }
    assert {three: ALPHA2_OF_ALPHA3[three] for three in surprising} == surprising
