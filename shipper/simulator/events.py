"""One audit event of the simulated organization: its body, its bytes, and what the filters look at."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any, Final, Literal

import orjson

from shipper.model import Lane
from shipper.simulator.directory import Key, Project, ServiceAccount, User, base62, fingerprints
from shipper.simulator.places import Place


class _Missing(Enum):
    MISSING = "missing"


MISSING: Final = _Missing.MISSING
Actor = Mapping[str, Any] | None | Literal[_Missing.MISSING]


@dataclass(frozen=True, slots=True)
class Event:
    """`raw` are the bytes every answer holds for this event. The tuples are what a filter can ask for."""

    id: str
    type: str
    effective_at: int
    lane: Lane
    raw: bytes
    project_id: str = ""
    actor_ids: tuple[str, ...] = ()
    actor_emails: tuple[str, ...] = ()
    resource_ids: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[int, str]:
        """The place in the order: by time, events of one second by id."""
        return (self.effective_at, self.id)


def event(body: Mapping[str, Any], lane: Lane, raw: bytes) -> Event:
    """The event with this body. `raw` is the body in some serialisation."""
    project = body.get("project") or {}
    actor = body.get("actor") or {}
    key = actor.get("api_key") or {}
    people = [(actor.get("session") or {}).get("user") or {}, key.get("user") or {}]
    ids = [*(person.get("id") for person in people), key.get("id"), (key.get("service_account") or {}).get("id")]
    return Event(
        id=body["id"],
        type=body["type"],
        effective_at=body["effective_at"],
        lane=lane,
        raw=raw,
        project_id=project.get("id", ""),
        actor_ids=tuple(known for known in ids if known),
        actor_emails=tuple(person["email"] for person in people if "email" in person),
        resource_ids=tuple(_targets(body.get(body["type"]))),
    )


def _targets(payload: Any) -> Iterator[str]:
    """The payload's id, or the ids of the objects it lists (certificates, configs)."""
    if not isinstance(payload, Mapping):
        return
    if isinstance(payload.get("id"), str):
        yield payload["id"]
    for value in payload.values():
        if isinstance(value, list):
            yield from (item["id"] for item in value if isinstance(item, Mapping) and "id" in item)


def compose(  # noqa: PLR0913 - the parts of an event, by name
    rng: Random,
    event_type: str,
    at: int,
    *,
    actor: Actor,
    project: Project | None = None,
    payload: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The body of an event as the API writes it. A few carry fields that no document declares."""
    body: dict[str, Any] = {
        "object": "organization.audit_log",
        "id": f"audit_log-{base62(rng, 24)}",
        "type": event_type,
        "effective_at": at,
    }
    if project is not None:
        body["project"] = {"id": project.id, "name": project.name}
    if actor is not MISSING:
        body["actor"] = actor
    if payload is not None:
        body[event_type] = payload
    if rng.random() < 0.05:
        body["source"] = "cloud_console"
    if rng.random() < 0.02:
        body["request_context"] = {"trace_id": base62(rng, 22), "sampled": False}
    return body


def session(rng: Random, user: User, place: Place, address: str, user_agent: str) -> dict[str, Any]:
    """A person in a browser, with the fields seen live: all of `ip_address_details` are strings."""
    ja3, ja4 = fingerprints(user_agent)
    return {
        "type": "session",
        "session": {
            "user": {"id": user.id, "email": user.email},
            "ip_address": address,
            "user_agent": user_agent,
            "ja3": ja3,
            "ja4": ja4,
            "ip_address_details": {
                # Seen live: US and USA, an empty asn.
                "country": "USA" if place.country == "US" and rng.random() < 0.3 else place.country,
                "city": place.city,
                "region": place.region,
                "region_code": place.region_code,
                "asn": "" if rng.random() < 0.15 else place.asn,
                "latitude": place.latitude,
                "longitude": place.longitude,
            },
        },
    }


def api_key(rng: Random, key: Key) -> dict[str, Any]:
    """A program with a key: no address, and an e-mail address only now and then."""
    if isinstance(key.owner, ServiceAccount):
        return {
            "type": "api_key",
            "api_key": {"id": key.id, "type": "service_account", "service_account": {"id": key.owner.id}},
        }
    user = {"id": key.owner.id}
    if rng.random() < 0.3:
        user["email"] = key.owner.email
    return {"type": "api_key", "api_key": {"id": key.id, "type": "user", "user": user}}


def serialise(rng: Random, body: Mapping[str, Any]) -> bytes:
    """The event's bytes, fixed once and for all. About one in twelve is written in an unusual but legal way."""
    form = rng.randrange(60)
    if form == 0:
        return json.dumps(body, indent=2, ensure_ascii=False).encode()
    if form == 1:
        return json.dumps(dict(reversed(list(body.items())))).encode()
    if form == 2:
        return json.dumps(body, separators=(" ,\t", " : ")).encode()
    if form == 3:
        return orjson.dumps(body).replace(b"/", b"\\/")
    if form == 4:
        return json.dumps(body, sort_keys=True, indent="\r\n").encode()
    return orjson.dumps(body)
