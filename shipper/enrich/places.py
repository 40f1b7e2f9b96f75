"""Reads MaxMind records by field and merges what several sources say about one address. Pure.

The merge rules: an earlier source is believed, a later one fills only what is still unknown. City and coordinates never
come from a source that names another country, AS organization and ISP never from one that names another AS number. A
source that names none contradicts none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from shipper.model import Place

_MAX_AS_NUMBER = 2**32 - 1

# Strongest first: an address that is both a Tor exit and hosted is `tor`.
ANONYMITY: tuple[tuple[str, str], ...] = (
    ("is_tor_exit_node", "tor"),
    ("is_anonymous_vpn", "vpn"),
    ("is_public_proxy", "proxy"),
    ("is_residential_proxy", "residential proxy"),
    ("is_hosting_provider", "hosting"),
)


class Record(NamedTuple):
    """One database's answer. `anonymity` is per line of ANONYMITY; None where the record does not say."""

    place: Place
    anonymity: tuple[bool | None, ...]


NOWHERE = Place()


def read_record(record: object) -> Record:
    """What a record says, whatever family it is from: fields of the wrong type or range count as absent.

    The country is where the address is. Where its network is registered or whom it represents is another matter, so
    `registered_country` and `represented_country` are not read: a made-up country would look like a sign-in from it.
    """
    top = _map(record)
    traits = _map(top.get("traits"))
    location = _map(top.get("location"))
    latitude, longitude = _coordinates(location.get("latitude"), location.get("longitude"))
    place = Place(
        country=_country_code(_map(top.get("country")).get("iso_code")),
        as_number=_as_number(_either(top, traits, "autonomous_system_number")),
        as_organization=_text(_either(top, traits, "autonomous_system_organization")),
        city=_text(_map(_map(top.get("city")).get("names")).get("en")),
        connection_type=_text(_either(top, traits, "connection_type")),
        isp=_text(_either(top, traits, "isp")),
        latitude=latitude,
        longitude=longitude,
        user_type=_text(_either(top, traits, "user_type")),
    )
    return Record(place, tuple(_flag(_either(top, traits, name)) for name, _ in ANONYMITY))


def merge(known: Place, later: Place) -> Place:
    """`known`, its gaps filled from `later` where the two do not contradict each other."""
    country = known.country or later.country
    as_number = known.as_number or later.as_number
    city, latitude, longitude = known.city, known.latitude, known.longitude
    if later.country in ("", country):
        city = city or later.city
        if not (latitude or longitude):
            latitude, longitude = later.latitude, later.longitude
    as_organization, isp = known.as_organization, known.isp
    if later.as_number in (0, as_number):
        as_organization = as_organization or later.as_organization
        isp = isp or later.isp
    return Place(
        ip=known.ip or later.ip,
        address=known.address or later.address,
        tags=known.tags or later.tags,
        country=country,
        as_number=as_number,
        as_organization=as_organization,
        city=city,
        connection_type=known.connection_type or later.connection_type,
        isp=isp,
        latitude=latitude,
        longitude=longitude,
        user_type=known.user_type or later.user_type,
    )


def merge_records(records: Iterable[Record]) -> Place:
    """All databases' answers for one address, most trusted first. An anonymizer's word beats any connection type."""
    place = NOWHERE
    flags: tuple[bool | None, ...] = (None,) * len(ANONYMITY)
    for record in records:
        place = merge(place, record.place)
        flags = tuple(later if known is None else known for known, later in zip(flags, record.anonymity, strict=True))
    for flag, (_, word) in zip(flags, ANONYMITY, strict=True):
        if flag:
            return replace(place, connection_type=word)
    return place


def _either(top: Mapping[str, object], traits: Mapping[str, object], name: str) -> object:
    """City and Enterprise keep these fields under `traits`, the single-purpose databases at the top."""
    return top[name] if name in top else traits.get(name)


def _map(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _country_code(value: object) -> str:
    code = _text(value)
    return code.upper() if len(code) == 2 and code.isascii() and code.isalpha() else ""


def _as_number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_AS_NUMBER:
        return value
    return 0


def _coordinates(latitude: object, longitude: object) -> tuple[float, float]:
    """Both or neither; 0 and 0 is how a source without a place writes unknown."""
    north, east = _degrees(latitude, 90), _degrees(longitude, 180)
    return (0.0, 0.0) if north is None or east is None else (north, east)


def _degrees(value: object, limit: int) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) <= limit:
        return float(value)
    return None
