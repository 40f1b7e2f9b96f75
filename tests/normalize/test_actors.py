"""Who acted: the actor's columns and the map analysts partition by."""

from __future__ import annotations

from typing import Any

import pytest

from tests.normalize.conftest import Make, row_of

USER = {"id": "user-1", "email": "ada@corp.example"}
ACCOUNT = {"id": "svc-1"}


@pytest.mark.parametrize(
    ("actor", "identity", "columns"),
    [
        (
            {"type": "session", "session": {"user": USER, "ip_address": "192.0.2.1", "user_agent": "x", "ja3": "y"}},
            {"id": "user-1", "email": "ada@corp.example", "type": "user"},
            ("session", "192.0.2.1", "user-1", "ada@corp.example", "", "", ""),
        ),
        (
            {"type": "api_key", "api_key": {"id": "key_1", "type": "user", "user": USER}},
            {"id": "user-1", "email": "ada@corp.example", "type": "user"},
            ("api_key", "", "user-1", "ada@corp.example", "key_1", "user", ""),
        ),
        (
            {"type": "api_key", "api_key": {"id": "key_1", "type": "service_account", "service_account": ACCOUNT}},
            {"id": "svc-1", "type": "service_account"},
            ("api_key", "", "", "", "key_1", "service_account", "svc-1"),
        ),
        (
            {"type": "api_key", "api_key": {"type": "service_account", "service_account": ACCOUNT, "user": USER}},
            {"id": "svc-1", "type": "service_account"},
            ("api_key", "", "user-1", "ada@corp.example", "", "service_account", "svc-1"),
        ),
        (
            {"type": "api_key", "api_key": {"type": "user", "service_account": ACCOUNT, "user": USER}},
            {"id": "user-1", "email": "ada@corp.example", "type": "user"},
            ("api_key", "", "user-1", "ada@corp.example", "", "user", "svc-1"),
        ),
        (
            {"session": {"user": {"id": "user-2"}}, "api_key": {"id": "key_1", "user": USER}},
            {"id": "user-2", "type": "user"},
            ("", "", "user-2", "", "key_1", "", ""),
        ),
        (
            {"type": "session", "session": {"user": {"email": "ada@corp.example"}}},
            {"email": "ada@corp.example", "type": "user"},
            ("session", "", "", "ada@corp.example", "", "", ""),
        ),
        (
            {"type": "api_key", "api_key": {"id": "key_1", "type": "service_account"}},
            {},
            ("api_key", "", "", "", "key_1", "service_account", ""),
        ),
        ({"type": "robot"}, {}, ("robot", "", "", "", "", "", "")),
        ({}, {}, ("", "", "", "", "", "", "")),
    ],
)
def test_actor(make: Make, actor: dict[str, Any], identity: dict[str, str], columns: tuple[str, ...]) -> None:
    """Identity alone in the map, absent keys left out; the key's own account wins when the key says it is one's."""
    row = row_of(make(actor=actor))
    assert row.actor == identity
    assert (
        row.actorType,
        row.actorIP,
        row.actorUserID,
        row.actorUserEmail,
        row.apiKeyID,
        row.apiKeyType,
        row.serviceAccountID,
    ) == columns


@pytest.mark.parametrize("holder", ["session", "api_key"])
def test_only_an_address_is_an_email(make: Make, holder: str) -> None:
    """What is no address stays out of the map and is marked; the column keeps it verbatim."""
    row = row_of(make(actor={holder: {"user": {"id": "user-1", "email": "Ada Smith@corp.example"}}}))
    assert row.actor == {"id": "user-1", "type": "user"}
    assert row.actorUserEmail == "Ada Smith@corp.example"
    assert row.tags["invalidValue"] == f"actor.{holder}.user.email"


def test_every_wrong_type_is_named(make: Make) -> None:
    """One mark lists every field that was dropped, in the order read."""
    session = {"user": [1], "ip_address": 1, "user_agent": {}, "ja3": 2, "ja4": True, "ip_address_details": "x"}
    key = {"id": 1, "type": [], "service_account": "svc", "user": {"id": 5, "email": {}}}
    row = row_of(make(actor={"type": 1, "session": session, "api_key": key}, project="p", source=3))
    assert row.tags["wrongType"].split(",") == [
        "actor.session.user",
        "actor.api_key.id",
        "actor.api_key.type",
        "actor.api_key.service_account",
        "actor.api_key.user.id",
        "actor.api_key.user.email",
        "actor.type",
        "actor.session.ip_address",
        "actor.session.ip_address_details",
        "actor.session.user_agent",
        "actor.session.ja3",
        "actor.session.ja4",
        "project",
        "source",
    ]
    assert row.actor == {}
