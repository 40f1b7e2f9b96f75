"""Reading a MaxMind record by field, and merging what several sources say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from msgspec.structs import replace

from shipper.enrich.places import ANONYMITY, NOWHERE, Record, merge, merge_records, read_record
from shipper.model import Place
from tests.mmdb import asn_record, city_record, country_record, isp_record

SILENT = (None,) * len(ANONYMITY)


def record(place: Place = NOWHERE, **flags: bool) -> Record:
    return Record(place, tuple(flags.get(name) for name, _ in ANONYMITY))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        pytest.param(
            city_record("FR", "Paris", 48.85, 2.35),
            Place(country="FR", city="Paris", latitude=48.85, longitude=2.35),
            id="city",
        ),
        pytest.param(country_record("FR"), Place(country="FR"), id="country"),
        pytest.param(
            isp_record(64500, "Org", "Isp"), Place(as_number=64500, as_organization="Org", isp="Isp"), id="isp"
        ),
        pytest.param(asn_record(64500, "Org"), Place(as_number=64500, as_organization="Org"), id="asn"),
        pytest.param({"connection_type": "Cable/DSL"}, Place(connection_type="Cable/DSL"), id="connection type"),
        pytest.param(
            {
                **city_record("FR", "Paris", 48.85, 2.35),
                "traits": {**isp_record(64500, "Org", "Isp"), "connection_type": "Corporate", "user_type": "business"},
            },
            Place("FR", 64500, "Org", "Paris", "Corporate", "Isp", 48.85, 2.35, "business"),
            id="enterprise",
        ),
        pytest.param(
            {"registered_country": {"iso_code": "US"}, "represented_country": {"iso_code": "US"}},
            NOWHERE,
            id="registered or represented is not where it is",
        ),
        pytest.param({"city": {"names": {"de": "Köln"}}}, NOWHERE, id="no English name"),
        pytest.param({"country": {"iso_code": "fr"}}, Place(country="FR"), id="lower case"),
        pytest.param({"location": {"latitude": 0.0, "longitude": 2.5}}, Place(longitude=2.5), id="on the equator"),
        pytest.param(
            {"location": {"latitude": -90, "longitude": 180}}, Place(latitude=-90.0, longitude=180.0), id="edges"
        ),
        pytest.param({"autonomous_system_number": 2**32 - 1}, Place(as_number=2**32 - 1), id="largest asn"),
        pytest.param({}, NOWHERE, id="empty"),
    ],
)
def test_a_record_is_read_by_field(raw: dict[str, Any], expected: Place) -> None:
    """Each family's fields land in their columns, wherever the family keeps them."""
    assert read_record(raw) == Record(expected, SILENT)


@pytest.mark.parametrize(
    "raw",
    [
        {"location": {"latitude": 91.0, "longitude": 2.0}},
        {"location": {"latitude": 48.0, "longitude": -180.5}},
        {"location": {"latitude": 48.0}},
        {"location": {"latitude": "48.0", "longitude": "2.0"}},
        {"location": {"latitude": math.nan, "longitude": 2.0}},
        {"location": {"latitude": 48.0, "longitude": math.inf}},
        {"location": {"latitude": True, "longitude": True}},
        {"location": {"latitude": 0.0, "longitude": 0.0}},
        {"location": [48.0, 2.0]},
        {"autonomous_system_number": 2**32},
        {"autonomous_system_number": -1},
        {"autonomous_system_number": 0},
        {"autonomous_system_number": "64500"},
        {"autonomous_system_number": 64500.0},
        {"autonomous_system_number": True},
        {"autonomous_system_organization": 7, "isp": ["x"], "connection_type": {}, "user_type": True},
        {"traits": "x", "country": "FR", "city": "Paris"},
        {"country": {"iso_code": "FRA"}},
        {"country": {"iso_code": "F1"}},
        {"country": {"iso_code": "ÄÖ"}},
        {"country": {"iso_code": 33}},
        {"city": {"names": {"en": 1}}},
        {"city": {"names": "Paris"}},
        {"is_tor_exit_node": "true", "is_hosting_provider": 1},
        ["a", "list"],
        "text",
        7,
        None,
    ],
)
def test_values_of_the_wrong_type_or_range_count_as_absent(raw: object) -> None:
    """A database that holds nonsense fills nothing, and one without a place writes it as 0/0."""
    assert read_record(raw) == Record(NOWHERE, SILENT)


PARIS = Place(country="FR", city="Paris", latitude=48.85, longitude=2.35)
LYON = Place(country="FR", city="Lyon", latitude=45.76, longitude=4.84)
LONDON = Place(country="GB", city="London", latitude=51.5, longitude=-0.09)
ORG = Place(as_number=64500, as_organization="Org", isp="Isp")
OTHER = Place(as_number=64501, as_organization="Other", isp="Other Isp")


@pytest.mark.parametrize(
    ("known", "later", "expected"),
    [
        pytest.param(PARIS, LYON, PARIS, id="the earlier one is believed"),
        pytest.param(Place(country="FR"), LYON, LYON, id="same country fills the gaps"),
        pytest.param(Place(country="FR"), LONDON, Place(country="FR"), id="nothing from another country"),
        pytest.param(NOWHERE, LONDON, LONDON, id="nothing known yet"),
        pytest.param(LONDON, NOWHERE, LONDON, id="nothing to add"),
        pytest.param(
            Place(country="FR"), replace(LONDON, country=""), replace(LONDON, country="FR"), id="silent on the country"
        ),
        pytest.param(Place(city="Paris"), Place(country="FR"), Place(country="FR", city="Paris"), id="country later"),
        pytest.param(
            Place(country="FR", city="Lyon"), PARIS, replace(PARIS, city="Lyon"), id="city known, coordinates not"
        ),
        pytest.param(
            Place(country="FR", latitude=0.0, longitude=2.5),
            PARIS,
            Place(country="FR", city="Paris", latitude=0.0, longitude=2.5),
            id="coordinates are a pair",
        ),
        pytest.param(ORG, OTHER, ORG, id="the earlier AS is believed"),
        pytest.param(Place(as_number=64500), ORG, ORG, id="same AS fills the gaps"),
        pytest.param(Place(as_number=64500), OTHER, Place(as_number=64500), id="nothing from another AS"),
        pytest.param(
            Place(as_number=64500), Place(isp="Isp"), Place(as_number=64500, isp="Isp"), id="silent on the AS"
        ),
        pytest.param(Place(isp="Isp"), Place(as_number=64500), Place(as_number=64500, isp="Isp"), id="AS later"),
        pytest.param(
            Place(country="FR", as_number=64500),
            replace(LONDON, as_number=64500, as_organization="Org", isp="Isp"),
            replace(ORG, country="FR"),
            id="another country with the same AS",
        ),
        pytest.param(
            Place(country="FR", as_number=64500),
            replace(LYON, as_number=64501, as_organization="Other"),
            replace(LYON, as_number=64500),
            id="another AS with the same country",
        ),
        pytest.param(
            Place(country="FR", as_number=1),
            Place(country="GB", as_number=2, connection_type="Corporate", user_type="business"),
            Place(country="FR", as_number=1, connection_type="Corporate", user_type="business"),
            id="connection and user type depend on neither",
        ),
        pytest.param(
            Place(connection_type="Cellular", user_type="cellular"),
            Place(connection_type="Corporate", user_type="business"),
            Place(connection_type="Cellular", user_type="cellular"),
            id="connection and user type of the earlier one",
        ),
    ],
)
def test_merging_two_sources(known: Place, later: Place, expected: Place) -> None:
    """The later source fills only gaps, and never with what belongs to another country or AS."""
    assert merge(known, later) == expected


def test_a_third_source_is_held_against_all_before_it() -> None:
    """The second names another country and adds nothing; the third agrees with the first and fills its gaps."""
    merged = merge_records([record(Place(country="FR")), record(LONDON), record(LYON)])
    assert merged == LYON


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([record(is_tor_exit_node=True, is_anonymous_vpn=True, is_hosting_provider=True)], "tor"),
        ([record(is_anonymous_vpn=True, is_public_proxy=True, is_hosting_provider=True)], "vpn"),
        ([record(is_public_proxy=True, is_residential_proxy=True)], "proxy"),
        ([record(is_residential_proxy=True, is_hosting_provider=True)], "residential proxy"),
        ([record(is_hosting_provider=True)], "hosting"),
        ([record(Place(connection_type="Cable/DSL")), record(is_anonymous_vpn=True)], "vpn"),
        ([record(is_hosting_provider=True), record(is_tor_exit_node=True)], "tor"),
        ([record(is_tor_exit_node=False), record(is_tor_exit_node=True)], ""),
        ([record(Place(connection_type="Cellular"), is_tor_exit_node=False)], "Cellular"),
        ([record(Place(connection_type="Cellular")), record(Place(connection_type="Corporate"))], "Cellular"),
        ([], ""),
    ],
)
def test_an_anonymizer_decides_the_connection_type(records: list[Record], expected: str) -> None:
    """The strongest word of all databases wins; a flag an earlier database denies stays denied; else MaxMind's type."""
    assert merge_records(records) == Place(connection_type=expected)
