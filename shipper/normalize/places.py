"""Where a session came from, by the event's own account: its address and the API's `ip_address_details`."""

from __future__ import annotations

import msgspec

from shipper.normalize.countries import alpha2
from shipper.normalize.fields import Object, as_number, canonical_ip, degrees, table, text

_DETAILS = "actor.session.ip_address_details"
_TEXTS = ("country", "city", "region", "region_code")


class Place(msgspec.Struct, frozen=True, gc=False):
    """The src* columns an event fills by itself, the tags that go with them, and what could not be read."""

    ip: str = ""
    country: str = ""
    as_number: int = 0
    city: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    tags: tuple[tuple[str, str], ...] = ()
    wrong: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()


NOWHERE = Place()


def place_of(address: str, session: Object) -> Place:
    """The session's place."""
    wrong: list[str] = []
    details = table(session, "ip_address_details", _DETAILS, wrong)
    invalid: list[str] = []
    country, city, region, region_code = (text(details, key, f"{_DETAILS}.{key}", wrong) for key in _TEXTS)
    code = alpha2(country)
    if country.strip() and not code:
        invalid.append(f"{_DETAILS}.country")
    number = as_number(details.get("asn") or "")
    if number is None:
        invalid.append(f"{_DETAILS}.asn")
    latitude, longitude = _coordinates(details.get("latitude"), details.get("longitude"), invalid)
    ip = canonical_ip(address)
    tags = {"region": region, "regionCode": region_code, "srcIPInvalid": "true" if address and not ip else ""}
    return Place(
        ip,
        code,
        number or 0,
        city,
        latitude,
        longitude,
        tuple((key, value) for key, value in tags.items() if value),
        tuple(wrong),
        tuple(invalid),
    )


def _coordinates(latitude: object, longitude: object, invalid: list[str]) -> tuple[float, float]:
    """Both or neither: half a position with 0 for the rest is a wrong place."""
    if latitude in (None, "") and longitude in (None, ""):
        return 0.0, 0.0
    north, east = degrees(latitude, 90), degrees(longitude, 180)
    if north is None:
        invalid.append(f"{_DETAILS}.latitude")
    if east is None:
        invalid.append(f"{_DETAILS}.longitude")
    return (0.0, 0.0) if north is None or east is None else (north, east)
