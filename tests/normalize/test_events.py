"""normalize: dead letters, marks, row ids, and that nothing an event holds makes it raise."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import orjson
import pytest

from shipper.model import EventID, Lane, RawEvent, Row, Source, SourceID, WorkspaceID
from shipper.normalize import Reason, event_types, normalize, row_id
from tests.normalize.conftest import RECEIVED_AT, SOURCE, Make, dead_letter_of, received, row_of


def test_the_least_event(make: Make) -> None:
    """Id, type and time are enough for a row: every other column has its default."""
    raw = make()
    expected = {
        "workspaceID": "workspace-1",
        "sourceID": "source-1",
        "sourceType": "openai",
        "sourceTTL": 90,
        "receivedAt": RECEIVED_AT,
        "id": row_id(SOURCE.source_id, EventID("audit_log-1")),
        "eventTime": 1_760_009_000,
        "eventName": "user.updated",
        "eventID": "audit_log-1",
        "tags": {"lane": "organization", "category": "user"},
        "serviceName": "openai",
        "rawLog": raw,
        "eventType": "user.updated",
    }
    assert {name: value for name, value in vars(row_of(raw)).items() if value not in ("", 0, [], {})} == expected


@pytest.mark.parametrize(
    ("raw", "reason", "got"),
    [
        (b"", Reason.NOT_JSON, ""),
        (b'{"id": "a", "effective_at": 5', Reason.NOT_JSON, ""),
        (b"\x80\x81", Reason.NOT_JSON, ""),
        (b"[1]", Reason.NOT_AN_OBJECT, "got an array"),
        (b'"text"', Reason.NOT_AN_OBJECT, "got 'text'"),
        (b"null", Reason.NOT_AN_OBJECT, "got None"),
        (b"{}", Reason.NO_EVENT_ID, "got None"),
        (b'{"id": "", "effective_at": 5}', Reason.NO_EVENT_ID, "got ''"),
        (b'{"id": 7, "effective_at": 5}', Reason.NO_EVENT_ID, "got 7"),
        (b'{"id": {}, "effective_at": 5}', Reason.NO_EVENT_ID, "got an object"),
        (b'{"id": "a\xff", "effective_at": 5}', Reason.NO_EVENT_ID, r"got 'a\ufffd'"),
        (rb'{"id": "a\ud800", "effective_at": 5}', Reason.NO_EVENT_ID, r"got 'a\ufffd'"),
        (b'{"id": "a"}', Reason.NO_EVENT_TIME, "got None"),
        (b'{"id": "a", "effective_at": 0}', Reason.NO_EVENT_TIME, "got 0"),
        (b'{"id": "a", "effective_at": true}', Reason.NO_EVENT_TIME, "got True"),
        (b'{"id": "a", "effective_at": 4294967296}', Reason.NO_EVENT_TIME, "got 4294967296"),
        (b'{"id": "a", "effective_at": "2026-01-01"}', Reason.NO_EVENT_TIME, "got '2026-01-01'"),
        (b'{"id": "a", "effective_at": "' + b"x" * 99 + b'"}', Reason.NO_EVENT_TIME, "got '" + "x" * 40 + "'…"),
    ],
)
def test_dead_letters(raw: bytes, reason: Reason, got: str) -> None:
    """What cannot be a row keeps its bytes, with a label for machines and what was found for people."""
    letter = dead_letter_of(raw)
    assert (letter.reason, letter.event) == (reason, received(raw))
    assert letter.detail.endswith(got)
    assert 0 < len(letter.detail) < 150


def test_row_id() -> None:
    """The same event of a source always has the same id, in any process; another source's or event's has another."""
    assert row_id(SourceID("openai"), EventID("audit_log-1")) == "f70ca96d11a828a54ff3c810ffc8b2d5"
    pairs = [("openai", "audit_log-1"), ("openai", "audit_log-2"), ("other", "audit_log-1"), ("a:b", "c"), ("a", "b:c")]
    assert len({row_id(SourceID(source), EventID(event)) for source, event in pairs}) == len(pairs)


def test_row_id_does_not_depend_on_anything_else(make: Make) -> None:
    """Read again later, in another lane, with other content: still the same id."""
    first = normalize(received(make()))
    second = normalize(
        RawEvent(make(type="x", effective_at=5), Lane.ARCHIVE, Source(WorkspaceID("w2"), SOURCE.source_id), 1)
    )
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert first.id == second.id


def test_same_event_same_row_and_little_shared(make: Make) -> None:
    """A later stage may fill a row's tags without changing another row's. The actor's map is one for all his rows."""
    raw = make(project={"id": "proj_1"})
    first, second = row_of(raw), row_of(raw)
    assert first == second
    first.tags["srcIPReserved"] = "true"
    assert first.actor is second.actor
    first.resources.clear()
    first.enrichments.append(({}, "", "", "", ""))
    assert second == row_of(raw)
    assert row_of(make()).tags == {"lane": "organization", "category": "user"}


@pytest.mark.parametrize(
    ("kind", "tags"),
    [
        (None, {"missingType": "true", "lane": "tenant"}),
        ("", {"missingType": "true", "lane": "tenant"}),
        (5, {"missingType": "true", "lane": "tenant", "wrongType": "type"}),
        ("new.thing", {"unmappedType": "true", "lane": "tenant"}),
    ],
)
def test_types_the_catalog_does_not_know(make: Make, kind: object, tags: dict[str, str]) -> None:
    """A row all the same, marked, in the lane the API was asked for, and never called read-only."""
    row = row_of(make(type=kind), Lane.TENANT)
    name = kind if isinstance(kind, str) else ""
    assert (row.eventType, row.eventName, row.readOnly, row.tags) == (name, name, False, tags)


def test_unknown_type_in_an_archive_has_no_lane(make: Make) -> None:
    """An archive does not say where its events were read."""
    assert row_of(make(type="new.thing"), Lane.ARCHIVE).tags == {"unmappedType": "true"}


def test_null_is_absent(make: Make) -> None:
    """Null in place of any object or text is no mark."""
    raw = make().removesuffix(b"}") + b', "actor": null, "project": null, "user.updated": null, "source": null}'
    row = row_of(raw)
    assert row.tags == {"lane": "organization", "category": "user"}
    assert (row.actor, row.projectID, row.resources) == ({}, "", [])


def test_source_and_session_tags(make: Make) -> None:
    """What is small and has no column is in tags, under these names; a lack is no key."""
    session = {
        "user_agent": "curl/8",
        "ja3": "a",
        "ja4": "b",
        "ip_address_details": {"region": "R", "region_code": "RC"},
    }
    row = row_of(make(source="scim", actor={"session": session}))
    assert row.tags == {
        "lane": "organization",
        "category": "user",
        "source": "scim",
        "userAgent": "curl/8",
        "ja3": "a",
        "ja4": "b",
        "region": "R",
        "regionCode": "RC",
    }


def test_two_megabytes(make: Make) -> None:
    """A 2 MB payload is one row with all its bytes; what is listed beside them stays small, and says so."""
    listed = [{"id": f"cert_{number}", "name": "n" * 40} for number in range(30_000)]
    raw = make(
        type="certificates.activated", project={"id": "proj_1"}, **{"certificates.activated": {"certificates": listed}}
    )
    assert len(raw) > 2_000_000
    row = row_of(raw)
    assert row.rawLog == raw
    assert len(row.resources) == 1000
    assert orjson.loads(row.resources[-1])["id"] == "cert_999"
    assert row.tags == {"lane": "organization", "category": "certificate", "resourcesCut": "true"}


@pytest.mark.parametrize(("levels", "marks"), [(500, {}), (50_000, {"deepNesting": "true"})])
def test_deep_nesting(make: Make, levels: int, marks: dict[str, str]) -> None:
    """However deep a payload is nested, the columns are read and the bytes kept."""
    deep = (
        b', "user.updated": {"id": "user-1", "changes_requested": ' + b'{"x":' * levels + b"1" + b"}" * levels + b"}}"
    )
    raw = make(project={"id": "proj_1", "name": "P"}).removesuffix(b"}") + deep
    row = row_of(raw)
    assert (row.projectID, row.projectName, row.rawLog) == ("proj_1", "P", raw)
    assert row.resources == ['{"type":"user","id":"user-1"}', '{"type":"project","id":"proj_1","name":"P"}']
    assert row.tags == {"lane": "organization", "category": "user", **marks}


def test_deep_nesting_in_the_details_of_an_address(make: Make) -> None:
    """Details that are too large to be remembered are read like any others."""
    details = b'{"country": "USA", "x": ' + b"[" * 600 + b"]" * 600 + b"}"
    session = b', "actor": {"session": {"ip_address": "192.0.2.1", "ip_address_details": ' + details + b"}}}"
    row = row_of(make().removesuffix(b"}") + session)
    assert (row.srcIP, row.srcASCountryCode) == ("192.0.2.1", "US")


def test_marks_of_two_kinds_of_repair_come_together(make: Make) -> None:
    """Every repair of the bytes is told."""
    row = row_of(make(project={"id": "proj_1", "name": "P"}).replace(b'"P"', b'"\xff\\ud800"'))
    assert row.projectName == "\ufffd\ufffd"
    assert row.tags == {"lane": "organization", "category": "user", "invalidUTF8": "true", "loneSurrogate": "true"}


LEAVES: list[Any] = [
    None, True, False, 0, -1, 7, 2**63, 1.5, -0.0, 1e300, "", " ", "x", "a@b.example", "192.0.2.1", "::1", "US", "USA",
    "AS1", "91.5", "\x00", "\u2028", "\U0001f600", [], {}, [None], ["x"], {"id": "x"}, {"id": ["x"]}, [{"id": 1}],
]  # fmt: skip
KEYS = [
    "id", "type", "effective_at", "project", "actor", "session", "api_key", "user", "email", "name", "ip_address",
    "ip_address_details", "country", "city", "region", "region_code", "asn", "latitude", "longitude", "user_agent",
    "ja3", "ja4", "service_account", "data", "changes_requested", "source", "certificates", "configs", "principal_id",
    "principal_type", "resource_id", "resource_type", "role_id", "x",
]  # fmt: skip


def _anything(chance: random.Random, depth: int) -> Any:
    if depth == 0 or chance.random() < 0.3:
        return chance.choice(LEAVES)
    if chance.random() < 0.2:
        return [_anything(chance, depth - 1) for _ in range(chance.randrange(4))]
    return {chance.choice(KEYS): _anything(chance, depth - 1) for _ in range(chance.randrange(8))}


def _some_event(chance: random.Random) -> bytes:
    """An event of a known type, every part of which may be anything; one in four has broken bytes as well."""
    kind = chance.choice(event_types()).type
    session = {key: _anything(chance, 2) for key in chance.sample(KEYS, 12)}
    actor = {"type": "session", "session": session, "api_key": _anything(chance, 3)}
    event = {
        "id": "audit_log-1",
        "type": kind,
        "effective_at": 1_760_009_000,
        "actor": actor,
        kind: _anything(chance, 4),
    }
    for _ in range(chance.randrange(4)):
        event[chance.choice([*KEYS, kind])] = _anything(chance, 3)
    raw = orjson.dumps(event)
    for _ in range(chance.choice([0, 0, 0, 3])):
        place = chance.randrange(len(raw))
        junk = [bytes([chance.randrange(256)]), rb"\ud800", b"NaN", b"\xed\xa0\x80", b"1e999", b"9" * 30]
        raw = raw[:place] + chance.choice(junk) + raw[place + chance.randrange(3) :]
    return raw


@pytest.mark.parametrize("seed", range(20))
def test_anything_goes(seed: int) -> None:
    """No exception, the same answer twice, the bytes kept, and only values that the columns can hold."""
    chance = random.Random(seed)
    for _ in range(200):
        event = received(_some_event(chance))
        result = normalize(event)
        assert normalize(event) == result
        if not isinstance(result, Row):
            assert result.event.raw == event.raw
            assert result.reason in set(Reason)
            continue
        assert result.raw == event.raw
        # Converting to Row again checks each field's type; encoding checks that every string is valid Unicode.
        values = msgspec.to_builtins(result, builtin_types=(bytes,))
        assert msgspec.convert(values, Row, strict=True, builtin_types=(bytes,)) == result
        msgspec.json.encode(values)
        assert 0 < result.event_time < 2**32
        assert 0 <= result.place.as_number < 2**32
        assert -90 <= result.place.latitude <= 90
        assert -180 <= result.place.longitude <= 180
        assert all({"type", "id"} <= set(orjson.loads(text)) for text in result.resources)
        assert len(result.resources) == len(set(result.resources))
