"""The short way and the long way: where an event has an envelope, both make the same row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipper.normalize import event_types
from shipper.normalize.envelope import envelope_of
from shipper.normalize.events import _normalize_envelope, _normalize_whole
from shipper.simulator import Organization
from tests.normalize.conftest import Make, received
from tests.organizations import NOW

GOLDEN = Path(__file__).parent.parent / "golden"


def same(raw: bytes) -> bool:
    """Whether the event has an envelope. Its two rows must be the same then."""
    short = _normalize_envelope(received(raw))
    assert short is None or short == _normalize_whole(received(raw)), raw
    return short is not None


def test_goldens() -> None:
    """Of each documented payload, and of each oddity. The documented ones all go the short way."""
    short = {path.parent.name for path in GOLDEN.glob("*/raw.json") if same(path.read_bytes())}
    documented = {entry.type for entry in event_types()}
    assert {path.name for path in GOLDEN.iterdir() if path.name in documented} <= short


def test_a_month_of_events() -> None:
    """Nearly all go the short way; those with an undeclared field or of an unknown type do not."""
    organization = Organization.build(seed=3, now=NOW, days=30, events_per_day=60)
    short = [same(event.raw) for event in organization.events]
    assert sum(short) > 0.9 * len(short)


@pytest.mark.parametrize(
    "document",
    [
        '{"id":"a","type":"user.added","effective_at":1,"actor":null,"project":null,"source":null,"user.added":null}',
        '{"actor":{"type":"session"},"user.added":{"type":"user.deleted"},"type":"user.added","id":"a","effective_at":1}',
        '{"id":"a","type":"user\\u002eadded","effective_at":1,"user.added":{"id":"u"}}',
        '{ "id" : "a" , "type" : "user.added", "effective_at": 1, "user.added" : { "id" : "u" } }',
        '{"id":"a","id":"b","type":"user.added","effective_at":1,"actor":{},"actor":{"type":"session"}}',
        '{"id":"\\ud83d\\ude00","type":"user.added","effective_at":1}',
        '{"id":"a","type":"user.added","effective_at":1,"actor":{"api_key":[]},"project":7,"user.added":"x"}',
        '{"id":"a","type":"user.added","effective_at":1,"actor":{"session":{"user":1,"ip_address_details":[]}}}',
    ],
)
def test_odd_and_still_an_envelope(document: str) -> None:
    assert same(document.encode())


@pytest.mark.parametrize(
    "document",
    [
        b'{"id":"a","type":"user.added","effective_at":1,"extra":1}',
        b'{"id":"a","type":"user.nodded","effective_at":1}',
        b'{"id":"a","effective_at":1}',
        b'{"type":"user.added","effective_at":1}',
        b'{"id":"","type":"user.added","effective_at":1}',
        b'{"id":"a","type":"user.added","effective_at":0}',
        b'{"id":"a","type":"user.added","effective_at":1.0}',
        b'{"id":"a","type":"user.added","effective_at":"1"}',
        b'{"id":"a","type":"user.added","effective_at":99999999999999999999}',
        b'{"id":"a","type":"user.added","effective_at":1,"source":3}',
        b'{"id":"a\xff","type":"user.added","effective_at":1}',
        b'{"id":"a\\ud800","type":"user.added","effective_at":1}',
        b'{"id":"a\n","type":"user.added","effective_at":1}',
        b'{"id":"a","type":"user.added","effective_at":1,"actor":{"type":"\xff"}}',
        b'{"id":"a","type":"user.added","effective_at":1,"actor":[]}',
        b'{"id":"a","type":"user.added","effective_at":1,"actor":{"session":{"ip_address":1}}}',
        b'{"id":"a","type":"user.added","effective_at":1,"actor":{"session":{"extra":"\xff"}}}',
        b'{"id":"a","type":"user.added","effective_at":1,"actor":{"session":{"user":{"extra":"\xff"}}}}',
        b'{"id":"a","type":"user.added","effective_at":1,"user.added":{"n":NaN}}',
        b'{"id":"a","type":"user.added","effective_at":1,"project":{"id":"\\ud800"}}',
        b'{"id":"a","type":"user.added","effective_at":1,"actor":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'\xef\xbb\xbf{"id":"a","type":"user.added","effective_at":1}',
        b'{"id":"a","type":"user.added","effective_at":1} x',
        b"[]",
        b"",
    ],
)
def test_anything_else_is_read_as_a_whole(document: bytes) -> None:
    """What has to be repaired, marked, guessed or refused has to be seen as a whole."""
    assert not same(document)


@pytest.mark.parametrize("levels", [1018, 1019, 1020, 1021, 1022, 1023, 1024, 1025])
@pytest.mark.parametrize(
    "path",
    [
        ("user.added",),
        ("actor",),
        ("actor", "session"),
        ("actor", "session", "user"),
        ("actor", "session", "ip_address_details"),
        ("actor", "api_key"),
    ],
    ids="/".join,
)
def test_at_the_depth_that_the_parser_takes(path: tuple[str, ...], levels: int) -> None:
    """A part is read on its own, but is as deep as it is in the event."""
    value = '{"x":' * levels + "1" + "}" * levels
    for key in reversed(path[1:]):
        value = f'{{"{key}":{value}}}'
    same(f'{{"id":"a","type":"user.added","effective_at":1,"{path[0]}":{value}}}'.encode())


# Half a surrogate pair too.
_TEXT = st.text(st.characters(codec=None), max_size=5)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_TYPES = st.sampled_from([entry.type for entry in event_types()] + ["session", "x"])


@settings(deadline=None)
@given(data=st.data())
def test_whatever_an_event_holds(data: st.DataObject) -> None:
    """Any values under the documented names, in any order, and bytes changed anywhere."""
    kind = data.draw(_TYPES)
    session = st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("user", "ip_address", "user_agent", "ja3", "ip_address_details"), _JSON)
    )
    actor = st.fixed_dictionaries({}, optional={"type": _JSON, "session": session | _JSON, "api_key": _JSON})
    fields: dict[str, Any] = {
        "id": st.text(max_size=4) | _JSON,
        "type": st.just(kind) | _JSON,
        "effective_at": st.integers(0, 2**32) | _JSON,
        "actor": actor | _JSON,
        "project": st.fixed_dictionaries({}, optional={"id": _JSON, "name": _JSON}) | _JSON,
        "source": _JSON,
        kind: st.dictionaries(st.sampled_from(["id", "data", "email", "type"]), _JSON) | _JSON,
    }
    names = data.draw(st.permutations(sorted(fields)))
    document = {name: data.draw(fields[name]) for name in names[data.draw(st.integers(0, 2)) :]}
    # The standard library writes numbers of any length, NaN, and half surrogate pairs.
    raw = json.dumps(document, ensure_ascii=data.draw(st.booleans())).encode(errors="surrogatepass")
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw = raw[:place] + data.draw(st.binary(max_size=2)) + raw[place + 1 :]
    same(raw)


def test_of_an_envelope_nothing_is_copied_that_is_not_asked_for(make: Make) -> None:
    """The parts are the event's own bytes, white space and all."""
    raw = make(actor={"api_key": {"id": "k"}}).replace(b'{"id":"k"}', b'{ "id" :"k" }')
    envelope = envelope_of(raw)
    assert envelope is not None
    assert envelope.actor is not None
    assert (bytes(envelope.actor.api_key), bytes(envelope.payload)) == (b'{ "id" :"k" }', b"null")
