"""Who acted: a user in a session, or an API key that belongs to a user or a service account."""

from __future__ import annotations

import msgspec

from shipper.normalize.fields import Object, is_email, table, text


class Actor(msgspec.Struct, frozen=True, gc=False):
    """The actor's columns. `identity` is the column `actor`; `session` is what else is to be read from a session."""

    type: str
    ip: str
    user_id: str
    user_email: str
    api_key_id: str
    api_key_type: str
    service_account_id: str
    identity: dict[str, str]
    session: Object


def actor_of(document: Object, wrong: list[str], invalid: list[str]) -> Actor:
    """The actor, empty when the event names none. Which keys are there decides, not what `actor.type` says."""
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
    return Actor(
        text(actor, "type", "actor.type", wrong),
        text(session, "ip_address", "actor.session.ip_address", wrong),
        user_id,
        user_email,
        key_id,
        key_type,
        service_account_id,
        _identity(user_id, email, service_account_id, acts_as_service_account=key_type == "service_account"),
        session,
    )


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
