"""GeoIP against real database files, whole and damaged."""

from __future__ import annotations

import errno
import gc
import gzip
import os
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from random import Random

import maxminddb
import msgspec
import pytest
from msgspec.structs import replace

from shipper.enrich.contract import DatabaseInfo
from shipper.enrich.geoip import GeoIP, open_database, read_info
from shipper.enrich.places import NOWHERE, read_record
from shipper.errors import ConfigError
from shipper.model import Place
from shipper.telemetry import Lookups
from tests.enrich.rows import changed, make_row, place_of
from tests.mmdb import BUILT, asn_record, city_record, country_record, isp_record, write_mmdb

PARIS = city_record("FR", "Paris", 48.85, 2.35)
PARIS_PLACE = Place(country="FR", city="Paris", latitude=48.85, longitude=2.35)
NETWORK = "81.2.69.0/24"
IP = "81.2.69.142"
SMAPS = Path("/proc/self/smaps")


def geoip(folder: Path, *databases: tuple[str, Mapping[str, object]], cache_size: int = 100) -> GeoIP:
    paths = [
        write_mmdb(folder / f"{number}.mmdb", family, networks) for number, (family, networks) in enumerate(databases)
    ]
    return GeoIP([open_database(path) for path in paths], cache_size=cache_size)


@pytest.mark.parametrize(
    ("family", "record", "expected"),
    [
        ("GeoIP2-City", PARIS, PARIS_PLACE),
        ("GeoLite2-City", PARIS, PARIS_PLACE),
        ("GeoIP2-City-Europe", PARIS, PARIS_PLACE),
        ("DBIP-City-Lite", PARIS, PARIS_PLACE),
        ("GeoIP2-Country", country_record("FR"), Place(country="FR")),
        ("GeoLite2-Country", country_record("FR"), Place(country="FR")),
        ("GeoLite2-ASN", asn_record(64500, "Org"), Place(as_number=64500, as_organization="Org")),
        ("DBIP-ASN-Lite (compat=GeoLite2-ASN)", asn_record(1, "Org"), Place(as_number=1, as_organization="Org")),
        ("GeoIP2-ISP", isp_record(64500, "Org", "Isp"), Place(as_number=64500, as_organization="Org", isp="Isp")),
        ("GeoIP2-Connection-Type", {"connection_type": "Cellular"}, Place(connection_type="Cellular")),
        (
            "GeoIP2-Anonymous-IP",
            {"is_anonymous": True, "is_anonymous_vpn": True, "is_hosting_provider": True},
            Place(connection_type="vpn"),
        ),
        (
            "GeoIP-Anonymous-Plus",
            {"anonymizer_confidence": 99, "is_anonymous": True, "is_residential_proxy": True, "provider_name": "x"},
            Place(connection_type="residential proxy"),
        ),
        ("GeoIP2-IP-Risk", {"ip_risk": 75.0, "is_tor_exit_node": True}, Place(connection_type="tor")),
        (
            "GeoIP2-Enterprise",
            {
                **PARIS,
                "traits": {**isp_record(64500, "Org", "Isp"), "connection_type": "Corporate", "user_type": "business"},
            },
            Place("FR", 64500, "Org", "Paris", "Corporate", "Isp", 48.85, 2.35, "business"),
        ),
        ("GeoIP2-Precision-Enterprise-Shield", {"traits": {"user_type": "school"}}, Place(user_type="school")),
    ],
)
def test_every_family_fills_its_columns(tmp_path: Path, family: str, record: object, expected: Place) -> None:
    """A row gets what the database knows, and nothing but the src* columns changes."""
    row = make_row(IP, tags={"lane": "organization"})
    before = msgspec.structs.replace(row)
    enrichment = geoip(tmp_path, (family, {NETWORK: record}))
    enrichment.enrich([row])
    assert place_of(row) == expected
    assert all(name.startswith("src") for name in changed(before, row))
    assert enrichment.lookups == Lookups(1, 1)


@pytest.mark.parametrize("ip", ["8.8.8.8", "2001:4860:4860::8888"])
def test_an_address_that_no_database_has_leaves_the_row_as_it_is(tmp_path: Path, ip: str) -> None:
    """Not found is an answer: no mark, no failure, and the API's own details stay."""
    row = make_row(ip, PARIS_PLACE)
    before = msgspec.structs.replace(row)
    enrichment = geoip(tmp_path, ("GeoIP2-City", {NETWORK: PARIS}))
    enrichment.enrich([row])
    assert changed(before, row) == set()
    assert enrichment.lookups == Lookups(1)


def test_an_empty_record_leaves_the_row_as_it_is(tmp_path: Path) -> None:
    """A record without fields, as Anonymous-IP has for ordinary networks, changes nothing."""
    row = make_row(IP, PARIS_PLACE)
    geoip(tmp_path, ("GeoIP2-Anonymous-IP", {NETWORK: {}})).enrich([row])
    assert (place_of(row), row.tags) == (PARIS_PLACE, {})


@pytest.mark.parametrize(
    ("ip", "city"),
    [("2a00:1450::1", "Dublin"), ("::ffff:81.2.69.142", "Paris"), ("81.2.69.142", "Paris"), ("2a00:1451::1", "")],
)
def test_addresses_of_both_versions(tmp_path: Path, ip: str, city: str) -> None:
    """IPv6 and IPv4 are found in one database, IPv4-mapped IPv6 as the IPv4 address it is."""
    row = make_row(ip)
    geoip(
        tmp_path, ("GeoIP2-City", {"2a00:1450::/32": city_record("IE", "Dublin", 53.3, -6.2), NETWORK: PARIS})
    ).enrich([row])
    assert row.place.city == city


def test_an_ipv6_address_is_not_in_an_ipv4_database(tmp_path: Path) -> None:
    """The reader raises for it; here it is not found, which is not a failure."""
    path = write_mmdb(tmp_path / "4.mmdb", "GeoIP2-City", {NETWORK: PARIS}, ip_version=4)
    enrichment = GeoIP([open_database(path)])
    rows = [make_row("2a00:1450::1"), make_row(IP)]
    enrichment.enrich(rows)
    assert [row.place.city for row in rows] == ["", "Paris"]
    assert [row.tags for row in rows] == [{}, {}]
    assert enrichment.lookups.failed == 0


@pytest.mark.parametrize("text", ["", "010.8.8.8", "081.2.69.142", "81.2.69", "localhost"])
def test_what_is_not_an_address_is_not_looked_up(tmp_path: Path, text: str) -> None:
    """The reader would take some of these for an address; the row stays as it is."""
    row = make_row(text)
    enrichment = geoip(tmp_path, ("GeoIP2-City", {"0.0.0.0/0": PARIS}))
    enrichment.enrich([row])
    assert (place_of(row), row.tags, enrichment.lookups) == (NOWHERE, {}, Lookups())


@pytest.mark.parametrize(
    ("ip", "kind"),
    [
        ("0.0.0.0", "unspecified"),  # noqa: S104  # nothing is bound
        ("10.1.2.3", "private"),
        ("127.0.0.1", "loopback"),
        ("fe80::1", "link-local"),
    ],
)
def test_a_reserved_address_is_marked_and_not_looked_up(tmp_path: Path, ip: str, kind: str) -> None:
    """Even a database that has the address is not asked; what the API told stays, and so do the other tags."""
    row = make_row(ip, PARIS_PLACE, tags={"lane": "organization"})
    enrichment = geoip(tmp_path, ("GeoIP2-City", {"0.0.0.0/0": city_record("GB", "London", 51.5, -0.09)}))
    enrichment.enrich([row])
    assert place_of(row) == PARIS_PLACE
    assert row.tags == {"lane": "organization", "srcIPReserved": kind}
    assert enrichment.lookups == Lookups()


def test_without_a_database_reserved_addresses_are_still_marked() -> None:
    """No database is a normal state: nothing is looked up, nothing fails, the API's details stay."""
    rows = [make_row("10.1.2.3", PARIS_PLACE), make_row(IP, PARIS_PLACE), make_row("")]
    enrichment = GeoIP()
    enrichment.enrich(rows)
    assert [row.tags for row in rows] == [{"srcIPReserved": "private"}, {}, {}]
    assert [place_of(row) for row in rows] == [PARIS_PLACE, PARIS_PLACE, NOWHERE]
    assert (enrichment.lookups, enrichment.databases) == (Lookups(), ())


def test_a_mark_does_not_reach_another_rows_tags() -> None:
    """Two rows that share one tags map: only the one with the reserved address gets the mark."""
    tags = {"lane": "organization"}
    rows = [make_row("10.1.2.3", tags=tags), make_row(IP, tags=tags)]
    GeoIP().enrich(rows)
    assert rows[1].tags == {"lane": "organization"}


def test_databases_are_merged_in_their_order_and_the_api_comes_last(tmp_path: Path) -> None:
    """The first database's country decides; the second's city and the API's coordinates are of another: dropped."""
    enrichment = geoip(
        tmp_path,
        ("GeoIP2-Country", {NETWORK: country_record("GB")}),
        ("GeoIP2-City", {NETWORK: PARIS}),
        ("GeoIP2-ISP", {NETWORK: isp_record(64500, "Org", "Isp")}),
        ("GeoLite2-ASN", {NETWORK: asn_record(64501, "Other")}),
    )
    row = make_row(IP, replace(PARIS_PLACE, as_number=64502, as_organization="Third", user_type="business"))
    enrichment.enrich([row])
    assert place_of(row) == Place(country="GB", as_number=64500, as_organization="Org", isp="Isp", user_type="business")


def test_the_api_fills_what_the_databases_left_unknown(tmp_path: Path) -> None:
    """The country is the database's, city and coordinates come from an API that names the same country."""
    row = make_row(IP, replace(PARIS_PLACE, as_number=64502))
    geoip(tmp_path, ("GeoIP2-Country", {NETWORK: country_record("FR")})).enrich([row])
    assert place_of(row) == replace(PARIS_PLACE, as_number=64502)


def test_rows_of_one_address_keep_their_own_details(tmp_path: Path) -> None:
    """The look-up is shared, what the API told about each event is not."""
    enrichment = geoip(tmp_path, ("GeoIP2-Country", {NETWORK: country_record("FR")}))
    rows = [make_row(IP, Place(country="FR", city="Lyon")), make_row(IP, Place(country="GB", city="London"))]
    enrichment.enrich(rows)
    assert [place_of(row) for row in rows] == [Place(country="FR", city="Lyon"), Place(country="FR")]
    assert enrichment.lookups == Lookups(1, 1)


def test_rows_that_share_a_place_share_what_comes_of_it(tmp_path: Path) -> None:
    """The place is merged once for all events that tell of it as one object."""
    enrichment = geoip(tmp_path, ("GeoIP2-City", {NETWORK: PARIS}))
    first, second = make_row(IP), make_row()
    second.place = first.place
    enrichment.enrich([first])
    enrichment.enrich([second])
    assert first.place == replace(PARIS_PLACE, ip=IP)
    assert second.place is first.place


def test_a_place_is_not_taken_for_one_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python gives the id of a freed object to another. So many places are kept as there may be, each with its id."""
    monkeypatch.setattr("shipper.enrich.geoip._PLACES", 30)
    enrichment = geoip(tmp_path, ("GeoIP2-City", {NETWORK: PARIS}))
    row, found, kept = make_row(), [], []
    for number in range(100):
        row.place = Place(ip=f"81.2.69.{number}")
        enrichment.enrich([row])
        found.append(row.place.ip)
        kept.append(len(enrichment._generation._merged))
    assert found == [f"81.2.69.{number}" for number in range(100)]
    assert kept == [number % 30 + 1 for number in range(100)]


def test_enriching_twice_is_the_same_as_once(tmp_path: Path) -> None:
    """A batch that is enriched again, after a failed insert say, does not change."""
    enrichment = geoip(
        tmp_path,
        ("GeoIP2-City", {NETWORK: PARIS}),
        ("GeoIP2-Anonymous-IP", {NETWORK: {"is_tor_exit_node": True}}),
    )
    rows = [make_row(IP, Place(country="GB", city="London")), make_row("10.0.0.1")]
    enrichment.enrich(rows)
    once = [msgspec.structs.replace(row) for row in rows]
    enrichment.enrich(rows)
    assert rows == once


def test_a_distinct_address_is_looked_up_once(tmp_path: Path) -> None:
    """A thousand rows of three addresses are three look-ups, over batches too."""
    enrichment = geoip(tmp_path, ("GeoIP2-City", {NETWORK: PARIS}))
    for _ in range(10):
        enrichment.enrich([make_row(f"81.2.69.{number % 3}") for number in range(100)])
    assert enrichment.lookups == Lookups(3, 3)


def test_the_cache_is_bounded_and_forgets_the_least_recently_used(tmp_path: Path) -> None:
    """With room for two addresses the third pushes out the one used longest ago, which is looked up again."""
    enrichment = geoip(tmp_path, ("GeoIP2-City", {NETWORK: PARIS}), cache_size=2)
    lookups = []
    for last in (1, 2, 1, 3, 1, 4, 2):
        enrichment.enrich([make_row(f"81.2.69.{last}")])
        lookups.append(enrichment.lookups.made)
    assert lookups == [1, 2, 2, 3, 3, 4, 5]


def damaged_city(path: Path) -> Path:
    """A City database in which the record of 81.2.69.0/24 cannot be read, and that of 81.2.70.0/24 can."""
    write_mmdb(path, "GeoIP2-City", {NETWORK: city_record("GB", "Damaged", 51.5, 0.1), "81.2.70.0/24": PARIS})
    whole = path.read_bytes()
    broken = whole.replace(b"\x47Damaged", b"\x00\x5aamaged")  # a string's control byte into a type that is none
    assert broken != whole
    path.write_bytes(broken)
    return path


def test_a_failed_lookup_is_counted_and_marked_and_the_rest_goes_on(tmp_path: Path) -> None:
    """The damaged database is named on the row, the other one's answer is used, other addresses are not affected."""
    isp = write_mmdb(tmp_path / "isp.mmdb", "GeoIP2-ISP", {NETWORK: isp_record(64500, "Org", "Isp")})
    enrichment = GeoIP([open_database(damaged_city(tmp_path / "city.mmdb")), open_database(isp)])
    rows = [make_row(IP, tags={"lane": "organization"}), make_row("81.2.70.1"), make_row("8.8.8.8"), make_row(IP)]
    enrichment.enrich(rows)
    found = Place(as_number=64500, as_organization="Org", isp="Isp")
    assert [place_of(row) for row in rows] == [found, PARIS_PLACE, NOWHERE, found]
    failed = {"geoipFailed": "GeoIP2-City"}
    assert [row.tags for row in rows] == [{"lane": "organization", **failed}, {}, {}, failed]
    assert enrichment.lookups == Lookups(3, 1, 1)


def test_two_databases_that_fail_are_both_named(tmp_path: Path) -> None:
    """One look-up that failed in two databases counts once and keeps the API's details."""
    path = damaged_city(tmp_path / "city.mmdb")
    enrichment = GeoIP([open_database(path), open_database(path)])
    row = make_row(IP, PARIS_PLACE)
    enrichment.enrich([row])
    assert (place_of(row), row.tags) == (PARIS_PLACE, {"geoipFailed": "GeoIP2-City,GeoIP2-City"})
    assert enrichment.lookups == Lookups(1, 0, 1)


def test_a_file_overwritten_after_it_was_opened_changes_nothing(tmp_path: Path) -> None:
    """Look-ups go to a copy in memory: neither new content nor an empty file in its place reaches them."""
    path = write_mmdb(tmp_path / "city.mmdb", "GeoIP2-City", {NETWORK: PARIS})
    enrichment = GeoIP([open_database(path)])
    with path.open("r+b") as file:
        file.truncate(0)
    row = make_row(IP)
    enrichment.enrich([row])
    assert place_of(row) == PARIS_PLACE


def _resident() -> int:
    """KiB of databases' copies that count as memory of this process."""
    total, ours = 0, False
    for line in SMAPS.read_text().splitlines():
        name, _, rest = line.partition(":")
        if "-" in name:
            ours = "memfd:geoip" in line
        elif ours and name == "Rss":
            total += int(rest.removesuffix("kB"))
    return total


@pytest.mark.skipif(not SMAPS.exists(), reason="there is nothing that says which pages are resident")
def test_a_database_that_is_looked_up_in_is_not_kept_in_memory_as_a_whole(tmp_path: Path) -> None:
    """What was read of its copy is given back after some look-ups, and the next ones find what they found before."""
    networks = {f"{first}.0.0.0/8": PARIS for first in range(1, 200)}
    path = write_mmdb(tmp_path / WHOLE, "GeoIP2-City", networks)
    content = path.read_bytes()
    end = content.rindex(b"\xab\xcd\xefMaxMind.com")
    path.write_bytes(content[:end] + bytes(4 << 20) + content[end:])
    database = open_database(path)
    address = ip_address(IP)
    found = database.find(address)
    assert database._mapped is not None
    assert len(database._mapped.read()[:]) > 4 << 20
    before = _resident()
    assert [database.find(ip_address(f"{first}.0.0.1")) for first in range(2, 130)] == [found] * 128
    assert before - _resident() > 3 << 10


@pytest.mark.parametrize("mode", [maxminddb.MODE_MEMORY, maxminddb.MODE_MMAP_EXT], ids=["pure", "C"])
def test_addresses_of_one_network_are_looked_up_once(tmp_path: Path, mode: int) -> None:
    """Wherever networks end, and where there are none: every address has the record that the reader gives for it."""
    rng = Random(3)
    networks = {
        f"{first}.{rng.randrange(256)}.{rng.randrange(256)}.0/24": asn_record(first, f"Org {first}")
        for first in range(1, 60)
    } | {f"2001:db8:{part:x}::/{rng.choice([33 + 15, 64])}": asn_record(part, f"Org {part}") for part in range(1, 60)}
    database = open_database(write_mmdb(tmp_path / WHOLE, "GeoLite2-ASN", networks))
    database._reader = maxminddb.open_database(tmp_path / WHOLE, mode)
    reader = maxminddb.open_database(tmp_path / WHOLE, maxminddb.MODE_MEMORY)
    addresses: list[IPv4Address | IPv6Address] = []
    for network in map(ip_network, networks):
        last = network.num_addresses - 1
        addresses += [network[0], network[last], network[0] - 1, network[last] + 1, network[rng.randrange(last)]]
    rng.shuffle(addresses)
    for address in addresses:
        record = reader.get(address)
        assert database.find(address) == (None if record is None else read_record(record)), address
    looked_up = database._lookups
    assert looked_up < len(addresses)
    for address in addresses:
        database.find(address)
    assert database._lookups == looked_up


def test_databases_are_told_with_type_and_build_time(tmp_path: Path) -> None:
    """What `shipper check` prints: path, type and build time of each database, in the configured order."""
    enrichment = geoip(tmp_path, ("GeoIP2-City", {NETWORK: PARIS}), ("GeoLite2-ASN", {NETWORK: asn_record(1, "Org")}))
    assert enrichment.databases == (
        DatabaseInfo(tmp_path / "0.mmdb", "GeoIP2-City", BUILT),
        DatabaseInfo(tmp_path / "1.mmdb", "GeoLite2-ASN", BUILT),
    )
    enrichment.close()


@pytest.mark.parametrize(
    "family", ["GeoIP2-Domain", "GeoIP2-User-Count", "GeoIP-Residential-Proxy", "Test", "", "Capacity", "CityX"]
)
def test_a_family_without_a_column_is_refused(tmp_path: Path, family: str) -> None:
    """It could fill nothing, so configuring it is a mistake that is told at the start."""
    path = write_mmdb(tmp_path / "x.mmdb", family, {NETWORK: PARIS})
    with pytest.raises(ConfigError) as caught:
        open_database(path)
    assert str(caught.value) == (
        f"cannot use the GeoIP database {path}: type {family!r} has no field that a column takes"
    )
    assert "Anonymous-Plus" in caught.value.hint


WHOLE = "whole.mmdb"


def zero_tree(data: bytes) -> bytes:
    return bytes(2000) + data[2000:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(lambda data: b"", "not a MaxMind DB file", id="empty"),
        pytest.param(lambda data: b"<!doctype html><title>Sign in</title>", "not a MaxMind DB file", id="HTML"),
        pytest.param(gzip.compress, "not a MaxMind DB file", id="gzip"),
        pytest.param(lambda data: data[: len(data) // 2], "not a MaxMind DB file", id="cut in the middle"),
        pytest.param(lambda data: data[:-20], "not a MaxMind DB file", id="cut near the end"),
        pytest.param(lambda data: data[-350:], "not a MaxMind DB file", id="only the end"),
        pytest.param(lambda data: bytes(len(data)), "not a MaxMind DB file", id="all zeros"),
        pytest.param(lambda data: data.replace(b"build_epoch", b"built_epoch"), "not a MaxMind DB file", id="metadata"),
        pytest.param(zero_tree, "a look-up in it fails, so it is damaged", id="zeros at the start"),
        pytest.param(
            lambda data: data.replace(b"ip_version\xa1\x06", b"ip_version\xa1\x05"),
            "its metadata is damaged",
            id="no such IP version",
        ),
        pytest.param(
            lambda data: data.replace(b"ip_version\xa1\x06", b"ip_version\x41\x06"),
            "its metadata is damaged",
            id="IP version of another type",
        ),
    ],
)
def test_a_damaged_file_is_refused_at_the_start(tmp_path: Path, content: object, reason: str) -> None:
    """The error names the file and the reason, and says what to do."""
    assert callable(content)
    path = write_mmdb(
        tmp_path / WHOLE, "GeoIP2-City", {f"{first}.0.0.0/8": {**PARIS, "n": first} for first in range(1, 128)}
    )
    whole = path.read_bytes()
    path.write_bytes(content(whole))
    assert path.read_bytes() != whole
    with pytest.raises(ConfigError) as caught:
        open_database(path)
    assert str(caught.value) == f"cannot use the GeoIP database {path}: {reason}"
    assert "download it again" in caught.value.hint


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The error names the file and the operating system's reason."""
    path = tmp_path / "none.mmdb"
    with pytest.raises(ConfigError) as caught:
        open_database(path)
    assert str(caught.value) == f"cannot read the GeoIP database {path}: No such file or directory"
    assert "geoip_databases" in caught.value.hint


def test_a_directory_is_refused(tmp_path: Path) -> None:
    """The same for a directory in the file's place."""
    with pytest.raises(ConfigError) as caught:
        open_database(tmp_path)
    assert str(caught.value) == f"cannot read the GeoIP database {tmp_path}: not a regular file"


def test_a_system_that_cannot_map_the_copy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reason is in the error, and the copy is given back."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    path = write_mmdb(tmp_path / WHOLE, "GeoIP2-City", {NETWORK: PARIS})
    gc.collect()
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    monkeypatch.setattr(maxminddb, "open_database", refuse)
    with pytest.raises(ConfigError) as caught:
        open_database(path)
    assert str(caught.value) == f"cannot read the GeoIP database {path}: Cannot allocate memory"
    del caught
    gc.collect()
    assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208


def test_what_a_database_says_of_itself_is_read_without_copying_it(tmp_path: Path) -> None:
    """As `shipper status` does; a file that is none is told like at the start of a run."""
    path = write_mmdb(tmp_path / WHOLE, "GeoIP2-City", {NETWORK: PARIS})
    assert read_info(path) == DatabaseInfo(path, "GeoIP2-City", BUILT)
    for content in (b"", b"<html>", path.read_bytes()[:-20]):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="not a MaxMind DB file"):
            read_info(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_info(tmp_path / "none.mmdb")
