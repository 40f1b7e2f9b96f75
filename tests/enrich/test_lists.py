"""Lists: which rules match a row, and what they write to `enrichments`."""

from __future__ import annotations

import random
import re
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shipper.config import ListSettings, Settings
from shipper.enrich.lists import MAX_REGEX_INPUT, Lists, open_lists
from shipper.enrich.rules import Field, Kind, Rule
from shipper.model import Row
from shipper.telemetry import Lookups
from tests.enrich.rows import changed, make_row


def lists(folder: Path, *texts: str) -> Lists:
    """One list a text, called first, second and so on."""
    entries = []
    for name, text in zip(("first", "second", "third"), texts, strict=False):
        path = folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        entries.append(ListSettings(name=name, path=path))
    opened = open_lists(Settings(lists=tuple(entries)))
    assert opened is not None
    return opened


def hits(enrichment: Lists, row: Row) -> list[tuple[dict[str, str], str, str, str, str]]:
    enrichment.enrich([row])
    return row.enrichments


def patterns(enrichment: Lists, row: Row) -> list[str]:
    return [value for _, _, _, _, value in hits(enrichment, row)]


def test_a_match_writes_the_rule_to_the_row(tmp_path: Path) -> None:
    """The rule's own keys, the field, the list, the type and the pattern as written; no other column changes."""
    enrichment = lists(
        tmp_path,
        "- {field: src.ip, exact: 2001:DB8:0::1, data: {site: hq, floor: 07}}\n"
        "- {field: src.ip, cidr: 2001:db8::/32}\n"
        "- {field: actor.email, regex: '@EXAMPLE\\.com$', data: {team: blue}}\n"
        "- {field: actor.id, exact: user-1}\n"
        "- {field: actor.id, exact: user-2}\n",
    )
    row = make_row("2001:db8::1", actorUserEmail="ann@example.com", actorUserID="user-1", tags={"lane": "tenant"})
    before = msgspec.structs.replace(row)
    assert hits(enrichment, row) == [
        ({"site": "hq", "floor": "07"}, "src.ip", "first", "exact", "2001:DB8:0::1"),
        ({}, "src.ip", "first", "cidr", "2001:db8::/32"),
        ({"team": "blue"}, "actor.email", "first", "regex", "@EXAMPLE\\.com$"),
        ({}, "actor.id", "first", "exact", "user-1"),
    ]
    assert changed(before, row) == {"enrichments"}


def test_a_row_that_nothing_matches_has_no_enrichments(tmp_path: Path) -> None:
    """Also when it lacks the fields; a pattern that matches the empty text does not match an absent value."""
    enrichment = lists(
        tmp_path,
        "- {field: src.ip, cidr: 10.0.0.0/8}\n- {field: actor.email, regex: '.*'}\n- {field: actor.id, regex: '^$'}\n",
    )
    assert hits(enrichment, make_row("11.0.0.1")) == []
    assert hits(enrichment, make_row()) == []
    assert enrichment.lookups == Lookups(1)


def test_hits_come_by_field_then_list_then_rule(tmp_path: Path) -> None:
    """The order is fixed, whatever kind of rule matched, so that the same event always gives the same row."""
    enrichment = lists(
        tmp_path,
        "- {field: actor.id, regex: a1}\n- {field: src.ip, regex: '^8'}\n- {field: src.ip, cidr: 0.0.0.0/0}\n",
        "- {field: src.ip, exact: 8.8.8.8}\n- {field: src.ip, cidr: 8.8.8.0/24}\n- {field: src.ip, cidr: 8.0.0.0/8}\n",
        "- {field: actor.id, exact: a1}\n- {field: src.ip, exact: 8.8.8.8}\n",
    )
    assert [
        (name, provider, value)
        for _, name, provider, _, value in hits(enrichment, make_row("8.8.8.8", actorUserID="a1"))
    ] == [
        ("src.ip", "first", "^8"),
        ("src.ip", "first", "0.0.0.0/0"),
        ("src.ip", "second", "8.8.8.8"),
        ("src.ip", "second", "8.8.8.0/24"),
        ("src.ip", "second", "8.0.0.0/8"),
        ("src.ip", "third", "8.8.8.8"),
        ("actor.id", "first", "a1"),
        ("actor.id", "third", "a1"),
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"actorUserEmail": "Ann@Example.COM"}, ["ann@EXAMPLE.com", "^ANN@"]),
        ({"actorUserEmail": "joann@example.com"}, []),
        ({"actor": {"email": "ann@example.com"}}, ["ann@EXAMPLE.com", "^ANN@"]),
        ({"actorUserEmail": "bob@example.com", "actor": {"email": "ann@example.com"}}, []),
        ({"actorUserEmail": "ann@example.com.evil"}, ["^ANN@"]),
        ({"actorUserEmail": "Strau\u00df@example.com"}, ["^strau\u00df@"]),
    ],
)
def test_an_email_address_is_compared_without_case(tmp_path: Path, values: dict[str, Any], expected: list[str]) -> None:
    """As the API told it, whole for an exact rule and anywhere for a regex."""
    enrichment = lists(
        tmp_path,
        "- {field: actor.email, exact: ann@EXAMPLE.com}\n- {field: actor.email, regex: '^ANN@'}\n"
        "- {field: actor.email, regex: '^strau\u00df@'}\n",
    )
    assert patterns(enrichment, make_row(**values)) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"actorUserID": "user-1", "serviceAccountID": "sa-1", "apiKeyID": "key-1"}, ["user-1"]),
        ({"serviceAccountID": "sa-1", "apiKeyID": "key-1"}, ["sa-1"]),
        ({"apiKeyID": "key-1"}, ["key-1"]),
        ({"actorUserID": "USER-1"}, []),
        ({}, []),
    ],
)
def test_the_actors_id_is_the_user_else_the_service_account_else_the_key(
    tmp_path: Path, values: dict[str, Any], expected: list[str]
) -> None:
    """One id per row, compared with case."""
    enrichment = lists(
        tmp_path, "".join(f"- {{field: actor.id, exact: {name}}}\n" for name in ("user-1", "sa-1", "key-1"))
    )
    assert patterns(enrichment, make_row(**values)) == expected


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("10.1.2.3", ["::ffff:10.0.0.0/104", "10.1.2.3", "0.0.0.0/0"]),
        ("::ffff:10.1.2.3", ["::ffff:10.0.0.0/104", "10.1.2.3", "0.0.0.0/0"]),
        ("11.1.2.3", ["0.0.0.0/0"]),
        ("2001:db8::1", ["2001:DB8::1"]),
        ("not an address", []),
    ],
)
def test_addresses_are_compared_as_addresses(tmp_path: Path, ip: str, expected: list[str]) -> None:
    """However a rule writes them; reserved ones too, since offices are on private addresses."""
    enrichment = lists(
        tmp_path,
        "- {field: src.ip, cidr: '::ffff:10.0.0.0/104'}\n- {field: src.ip, exact: 10.1.2.3}\n"
        "- {field: src.ip, cidr: 0.0.0.0/0}\n- {field: src.ip, exact: 2001:DB8::1}\n",
    )
    assert patterns(enrichment, make_row(ip)) == expected


@pytest.mark.parametrize("seed", range(3))
def test_many_networks_match_as_one_by_one(seed: int) -> None:
    """Two thousand networks: each address gets exactly those that hold it, in their order."""
    rng = random.Random(seed)
    networks = []
    for _ in range(2000):
        prefix = rng.randint(4, 32)
        networks.append(ip_network((rng.getrandbits(32) >> (32 - prefix) << (32 - prefix), prefix)))
    enrichment = Lists([("l", Rule(Field.SRC_IP, Kind.CIDR, str(network), network, {})) for network in networks])
    addresses = [IPv4Address(rng.getrandbits(32)) for _ in range(50)] + [rng.choice(networks)[-1] for _ in range(50)]
    for address in addresses:
        expected = [str(network) for network in networks if address in network]
        assert patterns(enrichment, make_row(str(address))) == expected


def test_a_value_too_long_for_a_regex_is_marked_and_counted(tmp_path: Path) -> None:
    """The regex does not see it, an exact rule does; the row says that the look-up failed, once per distinct value."""
    longest = "x" * MAX_REGEX_INPUT
    enrichment = lists(tmp_path, f"- {{field: actor.email, regex: x}}\n- {{field: actor.email, exact: {longest}x}}\n")
    rows = [make_row(actorUserEmail=text, tags={"lane": "tenant"}) for text in (longest, longest + "x", longest + "x")]
    enrichment.enrich(rows)
    assert [[value for *_, value in row.enrichments] for row in rows] == [["x"], [longest + "x"], [longest + "x"]]
    marked = {"lane": "tenant", "listsFailed": "actor.email"}
    assert [row.tags for row in rows] == [{"lane": "tenant"}, marked, marked]
    assert enrichment.lookups == Lookups(2, 1, 1)


def test_a_long_value_without_a_regex_is_no_failure(tmp_path: Path) -> None:
    """There was nothing that it was too long for."""
    enrichment = lists(tmp_path, "- {field: actor.id, exact: u}\n")
    row = make_row(actorUserID="u" * 10_000)
    assert (hits(enrichment, row), row.tags, enrichment.lookups) == ([], {}, Lookups(1))


def test_a_regex_over_an_id_sees_case(tmp_path: Path) -> None:
    """Ids differ by case; e-mail addresses alone do not."""
    enrichment = lists(tmp_path, "- {field: actor.id, regex: ^user}\n")
    assert patterns(enrichment, make_row(actorUserID="user-1")) == ["^user"]
    assert patterns(enrichment, make_row(actorUserID="USER-1")) == []


def test_every_field_that_failed_is_named(tmp_path: Path) -> None:
    """Two values too long on one row: both are in the mark."""
    enrichment = lists(tmp_path, "- {field: actor.id, regex: u}\n- {field: actor.email, regex: u}\n")
    row = make_row(actorUserID="u" * 300, actorUserEmail="u" * 300)
    enrichment.enrich([row])
    assert row.tags == {"listsFailed": "actor.email,actor.id"}


def test_a_distinct_value_is_matched_once_and_the_cache_is_bounded() -> None:
    """With room for two values the third pushes out the one used longest ago."""
    rule = Rule(Field.ACTOR_ID, Kind.REGEX, "u", re.compile("u"), {})
    enrichment = Lists([("l", rule)], cache_size=2)
    lookups = []
    for number in (1, 2, 1, 3, 1, 2):
        enrichment.enrich([make_row(actorUserID=f"u{number}")] * 3)
        lookups.append(enrichment.lookups.made)
    assert lookups == [1, 2, 2, 3, 3, 4]


def test_enriching_twice_is_the_same_as_once(tmp_path: Path) -> None:
    """Hits are set, not appended, and two rows do not share the list they are in."""
    enrichment = lists(tmp_path, "- {field: actor.id, exact: u}\n")
    rows = [make_row(actorUserID="u"), make_row(actorUserID="u")]
    enrichment.enrich(rows)
    enrichment.enrich(rows)
    assert [row.enrichments for row in rows] == [[({}, "actor.id", "first", "exact", "u")]] * 2
    assert rows[0].enrichments is not rows[1].enrichments


def test_without_lists_there_is_no_enrichment() -> None:
    """Nothing runs for a feature that is not configured."""
    assert open_lists(Settings()) is None
