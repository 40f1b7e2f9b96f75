"""Where a session came from, by the event's own account: its address and the API's `ip_address_details`."""

from __future__ import annotations

from functools import lru_cache

import msgspec
import orjson

from shipper.model import Place
from shipper.normalize.countries import alpha2
from shipper.normalize.fields import Object, as_number, canonical_ip, degrees, table, text

_DETAILS = "actor.session.ip_address_details"

# Places told in no more than this are remembered, so many of them: many people work at one.
_REMEMBERED_SIZE = 512
_REMEMBERED = 16_384

_TEXTS = ("country", "city", "region", "region_code")


class PlaceReading(msgspec.Struct, frozen=True, gc=False):
    """A place, and what could not be read."""

    place: Place = Place()
    wrong: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()


NOWHERE = PlaceReading()


def place_of(session: Object) -> PlaceReading:
    """Where a session came from."""
    wrong: list[str] = []
    invalid: list[str] = []
    address = text(session, "ip_address", "actor.session.ip_address", wrong)
    details = table(session, "ip_address_details", _DETAILS, wrong)
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
    place = Place(
        code,
        number or 0,
        city=city,
        latitude=latitude,
        longitude=longitude,
        ip=ip,
        address=address,
        tags={key: value for key, value in tags.items() if value},
    )
    return PlaceReading(place, tuple(wrong), tuple(invalid))


def place_in(address: str | None, details: bytes) -> PlaceReading:
    """As `place_of`, of an address and the JSON of its details. Raises ValueError when it is none, or large."""
    if len(address or "") + len(details) > _REMEMBERED_SIZE:
        raise ValueError("too large to be remembered")
    return _remembered(address, details)


@lru_cache(_REMEMBERED)
def _remembered(address: str | None, details: bytes) -> PlaceReading:
    return place_of({"ip_address": address, "ip_address_details": orjson.loads(details)})


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
