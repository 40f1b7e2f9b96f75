"""Makes MaxMind databases for tests, and records in the shape of each family."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdb_writer import MmdbF64, MmdbI32, MmdbU32, MmdbU64, MmdbU128, MMDBWriter
from netaddr import IPSet

BUILT = 1_767_225_600  # 2026-01-01


class _Writer(MMDBWriter):
    def _build_meta(self) -> dict[str, Any]:
        return {**super()._build_meta(), "build_epoch": BUILT}


def write_mmdb(path: Path, family: str, networks: Mapping[str, object], *, ip_version: int = 6) -> Path:
    """Write a database of this type with a record per network, larger networks first, and return its path.

    A version 6 database takes IPv4 networks too. Numbers are stored as in MaxMind's own files: unsigned 32 bits where
    they fit, and doubles.
    """
    writer = _Writer(ip_version=ip_version, database_type=family, languages=["en"], ipv4_compatible=ip_version == 6)
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), _typed(record))
    writer.to_db_file(str(path))
    return path


def _typed(value: Any) -> Any:
    # The writer keeps equal values once, and to Python 1, 1.0 and True are equal: give each type a class of its own.
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, float):
        return MmdbF64(value)
    if value < 0:
        return MmdbI32(value)
    return MmdbU32(value) if value < 2**32 else MmdbU64(value) if value < 2**64 else MmdbU128(value)


def country_record(country: str) -> dict[str, Any]:
    """As in Country databases."""
    return {
        "continent": {"code": "EU", "names": {"en": "Europe"}},
        "country": {"iso_code": country, "geoname_id": 1, "names": {"en": f"Land {country}"}},
        "registered_country": {"iso_code": country, "geoname_id": 1, "names": {"en": f"Land {country}"}},
    }


def city_record(country: str, city: str, latitude: float, longitude: float) -> dict[str, Any]:
    """As in City databases."""
    return {
        **country_record(country),
        "city": {"geoname_id": 2, "names": {"de": f"{city} (de)", "en": city}},
        "location": {"accuracy_radius": 100, "latitude": latitude, "longitude": longitude, "time_zone": "Europe/Paris"},
    }


def asn_record(number: int, organization: str) -> dict[str, Any]:
    """As in ASN databases."""
    return {"autonomous_system_number": number, "autonomous_system_organization": organization}


def isp_record(number: int, organization: str, isp: str) -> dict[str, Any]:
    """As in ISP databases."""
    return {**asn_record(number, organization), "isp": isp, "organization": isp}
