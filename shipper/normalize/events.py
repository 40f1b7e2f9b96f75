"""One event as received to one row of `openai_audit_logs`.

The tags `lane` and `category` come from the catalog, so that an archive and the API give the same row; an event of a
type the catalog does not know has no category, and the lane the API was asked for. Marks on the data's quality are
tags too: those of `reading`, and

    unmappedType  the catalog does not know the type
    missingType   the event names no type
    eventTimeAs   effective_at was not an integer but a `float` or a `string` that means one
    wrongType     the fields, joined by commas, that held another JSON type than their column, which has its default
    invalidValue  the fields that held a value their column cannot have (an asn over 32 bits, a name for an e-mail)
    srcIPInvalid  actor.session.ip_address is not an address
    resourcesCut  resources leaves out what was too big or too many
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import orjson

from shipper.model import MAX_TIME, DeadLetter, EventID, Kind, Lane, RawEvent, Row, SourceID
from shipper.normalize.actors import (
    NO_CLIENT,
    NOBODY,
    ActorReading,
    ClientReading,
    actor_in,
    actor_of,
    client_in,
    client_of,
    session_of,
)
from shipper.normalize.catalog import ResourceReader, known_types
from shipper.normalize.envelope import NOTHING, envelope_of
from shipper.normalize.fields import Object, table, text, timestamp
from shipper.normalize.places import NOWHERE, PlaceReading, place_in, place_of
from shipper.normalize.reading import read
from shipper.normalize.resources import NO_PROJECT, ProjectReading, project_in, project_of, resources_of

_AT_ROOT_ID = (("id",),)
_AT_ROOT_NAME = (("name",),)


# Of an event: its type, actor, client, place, project, payload, and where it says it is from.
_Parts = tuple[str, ActorReading, ClientReading, PlaceReading, ProjectReading, Any, str]


class Reason(StrEnum):
    """Why bytes are a dead letter."""

    NOT_JSON = "not-json"
    NOT_AN_OBJECT = "not-an-object"
    NO_EVENT_ID = "no-event-id"
    NO_EVENT_TIME = "no-event-time"


def row_id(source_id: SourceID, event_id: EventID) -> str:
    """32 hexadecimal digits: BLAKE2b, 128 bits, over `<length of source_id in characters>:<source_id>:<event_id>`.

    The length keeps two pairs from running into the same text.
    """
    digest = _begun_id(source_id).copy()
    digest.update(event_id.encode())
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _begun_id(source_id: SourceID) -> blake2b:
    return blake2b(f"{len(source_id)}:{source_id}:".encode(), digest_size=16)


def normalize(event: RawEvent) -> Row | DeadLetter:
    """The event's row: the same for the same event, whatever it holds. Never raises for content.

    A dead letter is what has no id or no time to be a row with, or is no JSON object. An id is a string that is not
    empty, and valid Unicode; a time is whole seconds after 1970-01-01 00:00:00, up to 2106.
    """
    return _normalize_envelope(event) or _normalize_whole(event)


def _normalize_envelope(event: RawEvent) -> Row | None:
    """The short way, for events that are as documented: the row that the long way makes, or None.

    Of a key that is there twice the last counts. The long way would also mark what is wrong with the first, and with a
    higher recursion limit than Python's own what is nested too deep for it. Marks alone differ, never a value.
    """
    envelope = envelope_of(event.raw)
    if envelope is None or not envelope.id or not 0 < envelope.effective_at <= MAX_TIME:
        return None
    acted, client, told = NOBODY, NO_CLIENT, NOWHERE
    actor = envelope.actor
    try:
        if actor is not None:
            session = actor.session
            if session is None:
                acted = actor_in(actor.type, b"null", bytes(actor.api_key))
            else:
                acted = actor_in(actor.type, bytes(session.user), bytes(actor.api_key))
                client = client_in(session.user_agent, session.ja3, session.ja4)
                told = place_in(session.ip_address, bytes(session.ip_address_details))
        named = NO_PROJECT if envelope.project is NOTHING else project_in(bytes(envelope.project))
        payload = None if envelope.payload is NOTHING else orjson.loads(bytes(envelope.payload))
    except ValueError:
        return None
    return _row(
        event,
        envelope.id,
        envelope.effective_at,
        (envelope.type, acted, client, told, named, payload, envelope.source or ""),
        [] if payload is None or type(payload) is dict else ["payload"],
    )


def _normalize_whole(event: RawEvent) -> Row | DeadLetter:
    try:
        document, marks = read(event.raw)
    except ValueError as error:
        return DeadLetter(event, Reason.NOT_JSON, str(error))
    if type(document) is not dict:
        return DeadLetter(event, Reason.NOT_AN_OBJECT, f"expected a JSON object, got {_told(document)}")
    event_id = document.get("id")
    if type(event_id) is not str or not event_id:
        return DeadLetter(event, Reason.NO_EVENT_ID, f"expected a string in id, got {_told(event_id)}")
    if marks and "\ufffd" in event_id:
        # Two ids broken in different ways read the same: one of the events would replace the other.
        return DeadLetter(event, Reason.NO_EVENT_ID, f"expected valid Unicode in id, got {_told(event_id)}")
    moment = document.get("effective_at")
    seconds = moment if type(moment) is int and 0 < moment <= MAX_TIME else timestamp(moment)
    if not seconds:
        detail = f"expected whole Unix seconds, 1 to {MAX_TIME}, in effective_at, got {_told(moment)}"
        return DeadLetter(event, Reason.NO_EVENT_TIME, detail)
    wrong: list[str] = []
    row = _row(event, event_id, seconds, _parts(document, wrong), wrong)
    if type(moment) is not int:
        row.tags["eventTimeAs"] = "string" if type(moment) is str else "float"
    for mark in marks:
        row.tags[mark] = "true"
    return row


def _parts(document: Object, wrong: list[str]) -> _Parts:
    kind = text(document, "type", "type", wrong)
    # A payload of an unknown type that is not like the others is no defect of the data.
    payload = table(document, kind, "payload", wrong if kind in known_types() else []) if kind else {}
    origin = text(document, "source", "source", wrong)
    acted, session = actor_of(document), session_of(document)
    client, told = (client_of(session), place_of(session)) if session else (NO_CLIENT, NOWHERE)
    return kind, acted, client, told, project_of(document), payload, origin


def _row(event: RawEvent, event_id: str, seconds: int, parts: _Parts, wrong: list[str]) -> Row:
    name, acted, client, told, named, payload, origin = parts
    known = known_types().get(name)
    if known is not None:
        kind = known.kind
        resources, cut = resources_of(payload, known.resources, named, wrong)
    else:
        kind = _unknown(name, event.lane)
        # Of an unknown type only the naming is known.
        guess = ResourceReader(name.partition(".")[0], "", _AT_ROOT_ID, _AT_ROOT_NAME, (), (), plain=False)
        resources, cut = resources_of(payload, (guess,), named, [])
    tags = {"source": origin} if origin else {}
    if wrong or cut or acted.wrong or acted.invalid or told.wrong or told.invalid or client.wrong or named.wrong:
        in_order = (*acted.wrong, *told.wrong, *client.wrong, *named.wrong, *wrong)
        _mark(tags, in_order, (*acted.invalid, *told.invalid), cut=cut)
    return Row(
        event.source,
        event.received_at,
        row_id(event.source.source_id, EventID(event_id)),
        seconds,
        event_id,
        kind,
        acted.actor,
        client.client,
        told.place,
        named.project,
        tags,
        resources,
        event.raw,
    )


def _unknown(name: str, lane: Lane) -> Kind:
    tags = {"unmappedType" if name else "missingType": "true"}
    if lane is not Lane.ARCHIVE:
        tags["lane"] = lane.value
    return Kind(name, read_only=False, tags=tags)


def _mark(tags: dict[str, str], wrong: tuple[str, ...], invalid: tuple[str, ...], *, cut: bool) -> None:
    if wrong:
        tags["wrongType"] = ",".join(dict.fromkeys(wrong))
    if invalid:
        tags["invalidValue"] = ",".join(invalid)
    if cut:
        tags["resourcesCut"] = "true"


def _told(value: object) -> str:
    """A value for a person to read: short, in ASCII, and never the whole of something big."""
    if value is None or type(value) in {bool, int, float}:
        return ascii(value)
    if type(value) is str:
        return ascii(value[:40]) + ("…" if len(value) > 40 else "")
    return "an array" if type(value) is list else "an object"
