"""The outer levels of an event, read without reading what lies below: most events repeat what is there.

Only for what is as documented: a known type, no field beside the documented ones, each of its documented JSON type.
Anything else has no envelope, and is read as a whole.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import msgspec

from shipper.normalize.catalog import event_types

NOTHING = msgspec.Raw(b"null")

_BEFORE_TYPE = b'"type":"'


class _Typed(msgspec.Struct, gc=False):
    type: str


class SessionEnvelope(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A session. Its user and the details of its address repeat as they are."""

    user: msgspec.Raw = NOTHING
    ip_address: str | None = None
    user_agent: str | None = None
    ja3: str | None = None
    ja4: str | None = None
    ip_address_details: msgspec.Raw = NOTHING


class ActorEnvelope(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Who acted: in a session, or with an API key."""

    type: str | None = None
    session: SessionEnvelope | None = None
    api_key: msgspec.Raw = NOTHING


class Envelope(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The documented fields. What is raw has the form of JSON and nothing more; the rest is checked."""

    id: str
    type: str
    effective_at: int
    object: str | None = None
    actor: ActorEnvelope | None = None
    project: msgspec.Raw = NOTHING
    source: str | None = None
    if TYPE_CHECKING:
        payload: msgspec.Raw = NOTHING
        """Under the name of the event's type."""


_typed = msgspec.json.Decoder(_Typed)


@cache
def _decoders() -> dict[bytes, msgspec.json.Decoder[Envelope]]:
    """One for each known type: an event's payload is under the name of its type."""
    payload = ("payload", msgspec.Raw, NOTHING)
    return {
        entry.type.encode(): msgspec.json.Decoder(
            msgspec.defstruct("Envelope", [payload], bases=(Envelope,), rename={"payload": entry.type}, gc=False)
        )
        for entry in event_types()
    }


def envelope_of(raw: bytes) -> Envelope | None:
    """The event's envelope, None when it has none. `payload` is null when there is none."""
    decoders = _decoders()
    # Mostly the event's type comes first, before that of its actor.
    start = raw.find(_BEFORE_TYPE) + len(_BEFORE_TYPE)
    kind = raw[start : raw.find(b'"', start)]
    try:
        if kind not in decoders:
            kind = _typed.decode(raw).type.encode()
        decoder = decoders.get(kind)
        envelope = decoder.decode(raw) if decoder is not None else None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return envelope if envelope is not None and envelope.type.encode() == kind else None
