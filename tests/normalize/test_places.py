"""Where a session came from: the src* columns as the event itself fills them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.normalize.conftest import Make, row_of

DETAILS = "actor.session.ip_address_details"


def place(row: Any) -> tuple[object, ...]:
    columns = (row.srcIP, row.srcASCountryCode, row.srcASNumber, row.srcCity, row.srcLatitude, row.srcLongitude)
    assert (row.srcASOrganization, row.srcConnectionType, row.srcISP, row.srcUserType) == ("", "", "", "")
    return columns


def at(make: Make, address: object, **details: Any) -> Any:
    session = {"ip_address": address, "ip_address_details": details}
    return row_of(make(actor={"type": "session", "session": session}))


def marks(row: Any) -> dict[str, str]:
    return {key: value for key, value in row.tags.items() if key not in ("lane", "category")}


def test_everything_given(make: Make) -> None:
    """Texts become numbers and an alpha-2 country; the region has no column and is a tag."""
    details = {"country": "USA", "city": "Austin", "asn": "AS16509", "latitude": "30.2672", "longitude": "-97.7431"}
    row = at(make, "::ffff:192.0.2.1", **details, region="Texas", region_code="TX")
    assert place(row) == ("192.0.2.1", "US", 16509, "Austin", 30.2672, -97.7431)
    assert row.actorIP == "::ffff:192.0.2.1"
    assert marks(row) == {"region": "Texas", "regionCode": "TX"}


@pytest.mark.parametrize("empty", [None, ""])
def test_nothing_given(make: Make, empty: object) -> None:
    """Empty and null mean unknown, and are no defect."""
    details = dict.fromkeys(("country", "city", "region", "region_code", "asn", "latitude", "longitude"), empty)
    row = at(make, empty, **details)
    assert place(row) == ("", "", 0, "", 0.0, 0.0)
    assert marks(row) == {}


def test_not_an_address(make: Make) -> None:
    """The text stays in actorIP, srcIP is empty, and the details still count."""
    row = at(make, "proxy-7", country="DE")
    assert place(row) == ("", "DE", 0, "", 0.0, 0.0)
    assert (row.actorIP, marks(row)) == ("proxy-7", {"srcIPInvalid": "true"})


@pytest.mark.parametrize(
    ("details", "left", "mark"),
    [
        ({"country": "ZZ"}, ("", 0, "", 0.0, 0.0), {"invalidValue": f"{DETAILS}.country"}),
        ({"country": 5}, ("", 0, "", 0.0, 0.0), {"wrongType": f"{DETAILS}.country"}),
        ({"city": ["Austin"], "country": "US"}, ("US", 0, "", 0.0, 0.0), {"wrongType": f"{DETAILS}.city"}),
        ({"asn": 2**63}, ("", 0, "", 0.0, 0.0), {"invalidValue": f"{DETAILS}.asn"}),
        ({"asn": "4294967296"}, ("", 0, "", 0.0, 0.0), {"invalidValue": f"{DETAILS}.asn"}),
        ({"latitude": "91", "longitude": "9"}, ("", 0, "", 0.0, 0.0), {"invalidValue": f"{DETAILS}.latitude"}),
        ({"latitude": "1", "longitude": "181"}, ("", 0, "", 0.0, 0.0), {"invalidValue": f"{DETAILS}.longitude"}),
        ({"latitude": "1"}, ("", 0, "", 0.0, 0.0), {"invalidValue": f"{DETAILS}.longitude"}),
        ({"longitude": "nan", "latitude": 0}, ("", 0, "", 0.0, 0.0), {"invalidValue": f"{DETAILS}.longitude"}),
        ({"latitude": 0, "longitude": "9.5"}, ("", 0, "", 0.0, 9.5), {}),
        ({"latitude": {}, "longitude": []}, ("", 0, "", 0.0, 0.0),
         {"invalidValue": f"{DETAILS}.latitude,{DETAILS}.longitude"}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_dropped(
    make: Make, details: dict[str, Any], left: tuple[object, ...], mark: dict[str, str]
) -> None:
    """A bad value leaves its own column empty and is named; half a position is none."""
    row = at(make, "192.0.2.1", **details)
    assert place(row) == ("192.0.2.1", *left)
    assert marks(row) == mark


def test_true_is_not_one(make: Make) -> None:
    """Answers are remembered, and equal is not the same: 1, 1.0 and true are told apart."""
    assert [at(make, "192.0.2.9", asn=asn).srcASNumber for asn in (1, True, 1.0, "1")] == [1, 0, 1, 1]


def test_a_big_event_is_read_without_being_remembered(make: Make) -> None:
    """Size changes how an answer is found, never the answer."""
    small = at(make, "192.0.2.1", country="USA", asn="7")
    big = at(make, "192.0.2.1", country="USA", asn="7", padding="x" * 10_000)
    assert place(big) == place(small) == ("192.0.2.1", "US", 7, "", 0.0, 0.0)
