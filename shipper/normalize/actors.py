"""Who acted, and from where: a user in a session, or an API key that belongs to a user or a service account."""

from __future__ import annotations

from functools import lru_cache

import msgspec
import orjson

from shipper.model import Actor, Place
from shipper.normalize.fields import Object, is_email, table, text
from shipper.normalize.places import NOWHERE, place_of

# Actors up to this size are remembered, so many of them: a session's events all have the same.
_REMEMBERED_SIZE = 1024
_REMEMBERED = 8192

_SESSION_TAGS = (
    ("user_agent", "userAgent", "actor.session.user_agent"),
    ("ja3", "ja3", "actor.session.ja3"),
    ("ja4", "ja4", "actor.session.ja4"),
)


class ActorReading(msgspec.Struct, frozen=True, gc=False):
    """Who acted and where from, the tags that go with it, and what could not be read."""

    actor: Actor
    place: Place
    tags: dict[str, str]
    wrong: tuple[str, ...]
    invalid: tuple[str, ...]


def actor_of(document: Object) -> ActorReading:
    """The actor, empty when the event names none. Which keys are there decides, not what `actor.type` says."""
    wrong: list[str] = []
    invalid: list[str] = []
    actor = table(document, "actor", "actor", wrong)
    session = table(actor, "session", "actor.session", wrong)
    key = table(actor, "api_key", "actor.api_key", wrong)
    user_id = user_email = key_id = key_type = service_account_id = ""
    email_path = ""
    if session:
        user = table(session, "user", "actor.session.user", wrong)
        user_id = text(user, "id", "actor.session.user.id", wrong)
        user_email = text(user, "email", "actor.session.user.email", wrong)
        email_path = "actor.session.user.email"
    if key:
        key_id = text(key, "id", "actor.api_key.id", wrong)
        key_type = text(key, "type", "actor.api_key.type", wrong)
        account = table(key, "service_account", "actor.api_key.service_account", wrong)
        service_account_id = text(account, "id", "actor.api_key.service_account.id", wrong)
        if not user_id and not user_email:
            user = table(key, "user", "actor.api_key.user", wrong)
            user_id = text(user, "id", "actor.api_key.user.id", wrong)
            user_email = text(user, "email", "actor.api_key.user.email", wrong)
            email_path = "actor.api_key.user.email"
    email = user_email if is_email(user_email) else ""
    if user_email and not email:
        invalid.append(email_path)
    kind = text(actor, "type", "actor.type", wrong)
    ip = text(session, "ip_address", "actor.session.ip_address", wrong)
    told = place_of(ip, session) if session else NOWHERE
    wrong += told.wrong
    tags = dict(told.tags)
    for name, tag, path in _SESSION_TAGS:
        if value := text(session, name, path, wrong):
            tags[tag] = value
    identity = _identity(user_id, email, service_account_id, acts_as_service_account=key_type == "service_account")
    return ActorReading(
        Actor(kind, ip, user_id, user_email, key_id, key_type, service_account_id, identity),
        told.place,
        tags,
        tuple(wrong),
        (*invalid, *told.invalid),
    )


def actor_in(raw: bytes) -> ActorReading:
    """The actor in these bytes, the value of an event's `actor`. Raises ValueError when they are not plain JSON."""
    return _remembered(raw) if len(raw) <= _REMEMBERED_SIZE else actor_of({"actor": orjson.loads(raw)})


@lru_cache(_REMEMBERED)
def _remembered(raw: bytes) -> ActorReading:
    return actor_of({"actor": orjson.loads(raw)})


def _identity(user_id: str, email: str, service_account_id: str, *, acts_as_service_account: bool) -> dict[str, str]:
    if service_account_id and (acts_as_service_account or not (user_id or email)):
        return {"id": service_account_id, "type": "service_account"}
    identity = {}
    if user_id:
        identity["id"] = user_id
    if email:
        identity["email"] = email
    if identity:
        identity["type"] = "user"
    return identity
