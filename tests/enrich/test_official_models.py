"""What is read from a database field by field is what MaxMind's own models make of it."""

from __future__ import annotations

from pathlib import Path

import geoip2.database

from shipper.config import Settings
from shipper.enrich import open_enricher
from tests.enrich.rows import make_row
from tests.mmdb import city_record, isp_record, write_mmdb

NETWORKS = {"81.2.69.0/24": ("GB", "London", 51.5142, -0.0931), "89.160.20.0/24": ("SE", "Linköping", 58.4167, 15.6167)}


def test_city_and_isp_agree_with_the_official_models(tmp_path: Path) -> None:
    """Country, city, coordinates, AS number, AS organization and ISP of every network, and of an address outside."""
    city = write_mmdb(tmp_path / "c.mmdb", "GeoIP2-City", {net: city_record(*place) for net, place in NETWORKS.items()})
    isps = {net: isp_record(64_500 + number, f"AS {number}", f"ISP {number}") for number, net in enumerate(NETWORKS)}
    isp = write_mmdb(tmp_path / "i.mmdb", "GeoIP2-ISP", isps)
    rows = [make_row(network.replace("0/24", "7")) for network in NETWORKS]
    with open_enricher(Settings(geoip_databases=(city, isp))) as enricher:
        enricher.enrich(rows)
    with geoip2.database.Reader(city) as cities, geoip2.database.Reader(isp) as providers:
        for one in rows:
            place, provider = cities.city(one.place.ip), providers.isp(one.place.ip)
            assert (one.place.country, one.place.city) == (place.country.iso_code, place.city.name)
            assert (one.place.latitude, one.place.longitude) == (place.location.latitude, place.location.longitude)
            assert one.place.as_number == provider.autonomous_system_number
            assert one.place.as_organization == provider.autonomous_system_organization
            assert one.place.isp == provider.isp
