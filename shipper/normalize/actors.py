"""Who acted, and with what: a user in a session, or an API key that belongs to a user or a service account."""

from __future__ import annotations

from functools import lru_cache

import msgspec
import orjson

from shipper.model import Actor, Client
from shipper.normalize.fields import Object, is_email, table, text

# What is no longer than this is remembered, so many of each: most events repeat the actor of one before them. What is
# longer is read as a whole. It might also be nested deeper than a parser takes it that begins above it.
_REMEMBERED_SIZE = 1024
_REMEMBERED = 8192

_CLIENT = (("user_agent", "userAgent"), ("ja3", "ja3"), ("ja4", "ja4"))


class ActorReading(msgspec.Struct, frozen=True, gc=False):
    """Who acted, and what could not be read."""

    actor: Actor = Actor()
    wrong: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()


class ClientReading(msgspec.Struct, frozen=True, gc=False):
    """With what somebody acted, and what could not be read."""

    client: Client = Client()
    wrong: tuple[str, ...] = ()


NOBODY = ActorReading()
NO_CLIENT = ClientReading()


def session_of(document: Object) -> Object:
    """The actor's session, empty when there is none. That something else is there is for `actor_of` to tell."""
    return table(table(document, "actor", "", []), "session", "", [])


def actor_of(document: Object) -> ActorReading:
    """Who acted, empty when the event names nobody. Which keys are there decides, not what `actor.type` says."""
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
    identity = _identity(user_id, email, service_account_id, acts_as_service_account=key_type == "service_account")
    return ActorReading(
        Actor(kind, user_id, user_email, key_id, key_type, service_account_id, identity), tuple(wrong), tuple(invalid)
    )


def client_of(session: Object) -> ClientReading:
    """With what: the tags `userAgent`, `ja3` and `ja4`."""
    wrong: list[str] = []
    told = {tag: text(session, name, f"actor.session.{name}", wrong) for name, tag in _CLIENT}
    return ClientReading(Client({tag: value for tag, value in told.items() if value}), tuple(wrong))


def actor_in(kind: str | None, user: bytes, key: bytes) -> ActorReading:
    """As `actor_of`, of the JSON of the session's user and of the API key.

    Raises ValueError when it is none, or large.
    """
    if len(user) + len(key) + len(kind or "") > _REMEMBERED_SIZE:
        raise ValueError("too large to be remembered")
    return _remembered_actor(kind, user, key)


def client_in(user_agent: str | None, ja3: str | None, ja4: str | None) -> ClientReading:
    """As `client_of`, of a session's values. Raises ValueError when they are large."""
    if len(user_agent or "") + len(ja3 or "") + len(ja4 or "") > _REMEMBERED_SIZE:
        raise ValueError("too large to be remembered")
    return _remembered_client(user_agent, ja3, ja4)


@lru_cache(_REMEMBERED)
def _remembered_actor(kind: str | None, user: bytes, key: bytes) -> ActorReading:
    actor = {"type": kind, "session": {"user": orjson.loads(user)}, "api_key": orjson.loads(key)}
    return actor_of({"actor": actor})


@lru_cache(_REMEMBERED)
def _remembered_client(user_agent: str | None, ja3: str | None, ja4: str | None) -> ClientReading:
    return client_of({"user_agent": user_agent, "ja3": ja3, "ja4": ja4})


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
