from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from openai.types.admin.organization import AuditLogListResponse
from pydantic import BaseModel

from shipper.model import Lane
from shipper.simulator import Organization
from shipper.simulator.actions import ACTIONS, ALARMING
from shipper.simulator.catalog import lanes
from tests.simulator.conftest import NOW

UNDOCUMENTED = {name for name in lanes() if name not in ACTIONS}


def bodies(organization: Organization) -> list[dict[str, Any]]:
    return [orjson.loads(event.raw) for event in organization.events]


def undeclared(value: object, path: str = "") -> Iterator[str]:
    """The paths in a parsed model that the model does not declare."""
    if isinstance(value, BaseModel):
        yield from (f"{path}.{name}" for name in value.model_extra or {})
        for name in type(value).model_fields:
            yield from undeclared(getattr(value, name), f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from undeclared(item, path)


def test_same_arguments_give_the_same_organization_and_another_seed_another() -> None:
    first, again, other = (Organization.build(seed, now=NOW, days=2) for seed in (1, 1, 2))
    assert first == again
    assert first.id != other.id
    assert not {event.id for event in first.events} & {event.id for event in other.events}


def test_a_later_look_shows_the_same_past_to_the_byte(organization: Organization) -> None:
    later = Organization.build(now=NOW + 86_400)
    start = later.now - 30 * 86_400 + 3_600
    shared = [event for event in organization.events if event.effective_at >= start]
    assert [event for event in later.events if event.effective_at < NOW] == shared
    assert [event for event in later.events if event.effective_at >= NOW]


def test_events_fill_the_span_in_order_with_unique_ids(organization: Organization) -> None:
    times = [event.effective_at for event in organization.events]
    assert times == sorted(times)
    assert NOW - 30 * 86_400 + 3_600 <= times[0] < NOW - 29 * 86_400
    assert NOW - 86_400 < times[-1] < NOW
    assert len({event.id for event in organization.events}) == len(organization.events)
    assert all(re.fullmatch(r"audit_log-[0-9A-Za-z]{24}", event.id) for event in organization.events)


@pytest.mark.parametrize("per_day", [20, 150, 600])
def test_the_number_of_events_is_about_what_was_asked(per_day: int) -> None:
    organization = Organization.build(now=NOW, events_per_day=per_day)
    # The 20 planted events of the incidents come on top.
    assert per_day * 30 * 0.9 < len(organization.events) - 20 < per_day * 30 * 1.1


def test_people_work_on_weekdays_and_by_day(organization: Organization) -> None:
    moments = [datetime.fromtimestamp(event.effective_at, UTC) for event in organization.events]
    per_weekday = Counter(moment.weekday() for moment in moments)
    assert max(per_weekday[5], per_weekday[6]) < min(per_weekday[day] for day in range(5)) / 2
    berlin = [
        datetime.fromtimestamp(event.effective_at + 3_600, UTC).hour
        for event in organization.events
        if b'"Berlin"' in event.raw
    ]
    assert sum(7 <= hour < 22 for hour in berlin) > 0.95 * len(berlin)


def test_every_event_is_of_a_known_type_in_its_lane(organization: Organization) -> None:
    assert {(event.type, event.lane) for event in organization.events} <= set(lanes().items())


def test_a_month_shows_nearly_every_type_that_a_quiet_one_has(organization: Organization) -> None:
    """What should alarm somebody happens in incidents only, and each such type is one of the catalog."""
    shown = Counter(event.type for event in organization.events)
    planted = {event_id for ids in organization.incidents.values() for event_id in ids}
    assert len(shown) >= 100
    assert {event.type for event in organization.events if event.type in ALARMING and event.id not in planted} == set()
    assert set(lanes()) >= ALARMING
    assert {event.type for event in organization.lane(Lane.ORGANIZATION)} >= set(ACTIONS) - ALARMING - {
        name for name, lane in lanes().items() if lane is Lane.TENANT
    }


def test_every_action_is_a_type_of_the_catalog() -> None:
    assert set(ACTIONS) <= set(lanes())
    assert set(UNDOCUMENTED) == {name for name in lanes() if name.startswith(("tenant.", "tunnel.", "resource."))}


def test_payloads_are_as_the_official_package_declares_them(organization: Organization) -> None:
    """Strict validation against the package's own models; nothing beyond them but what has been seen live."""
    extras = Counter(
        path
        for body in bodies(organization)
        for path in undeclared(AuditLogListResponse.model_validate(body))
        if path.removeprefix(".") not in UNDOCUMENTED
    )
    assert set(extras) == {
        ".object",
        ".source",
        ".request_context",
        ".actor.session.user_agent",
        ".actor.session.ja3",
        ".actor.session.ja4",
        ".actor.session.ip_address_details",
    }
    assert extras[".object"] == len(organization.events)
    assert 0 < extras[".request_context"] < len(organization.events) / 20


def test_the_payload_sits_under_the_type_and_sign_ins_have_none(organization: Organization) -> None:
    for body in bodies(organization):
        action = ACTIONS.get(body["type"])
        if action is not None:
            assert (body["type"] in body) == (action.payload is not None)
        if body["type"].startswith(("login.", "logout.")):
            assert "project" not in body
        if body["type"].startswith(("api_key.", "project.")):
            assert set(body["project"]) == {"id", "name"}
        assert body["object"] == "organization.audit_log"


def test_undocumented_types_come_with_an_id_or_without_a_payload(organization: Organization) -> None:
    payloads = [tuple(body.get(body["type"], ())) for body in bodies(organization) if body["type"] in UNDOCUMENTED]
    assert set(payloads) == {(), ("id",)}


def test_every_kind_of_actor_is_there(organization: Organization) -> None:
    def kind(body: dict[str, Any]) -> str:
        actor = body.get("actor", "missing")
        if not isinstance(actor, dict):
            return str(actor)
        key = actor.get("api_key", {})
        assert not {"session", "ip_address"} & (set(key) | (set(actor) - {"session"}))
        return f"{actor['type']} {key.get('type', '')} {sorted(key.get('user', ()))}"

    kinds = Counter(map(kind, bodies(organization)))
    assert set(kinds) == {
        "None",
        "missing",
        "session  []",
        "api_key service_account []",
        "api_key user ['id']",
        "api_key user ['email', 'id']",
    }
    assert kinds["session  []"] > len(organization.events) / 2


def test_nobody_is_named_only_in_events_without_a_documented_payload(organization: Organization) -> None:
    nameless = {body["type"] for body in bodies(organization) if not body.get("actor")}
    assert nameless
    assert nameless <= UNDOCUMENTED


def test_address_details_are_strings_with_the_variants_seen_live(organization: Organization) -> None:
    details = [
        body["actor"]["session"]["ip_address_details"]
        for body in bodies(organization)
        if (body.get("actor") or {}).get("type") == "session"
    ]
    assert all(isinstance(value, str) for detail in details for value in detail.values())
    countries = {detail["country"] for detail in details}
    assert {"US", "USA", "GB", "SE", "DE", "JP", "IN", "FR"} <= countries
    empty = sum(detail["asn"] == "" for detail in details)
    assert 0 < empty < len(details) / 4


def test_what_an_admin_key_does_belongs_to_the_default_project(organization: Organization) -> None:
    projects = {
        body["project"]["name"] for body in bodies(organization) if (body.get("actor") or {}).get("type") == "api_key"
    }
    assert projects == {"Default project"}


def test_some_events_are_written_in_an_unusual_way_and_mean_the_same(organization: Organization) -> None:
    """A reader that parses and writes an event again changes its bytes."""
    unusual = [event.raw for event in organization.events if orjson.dumps(orjson.loads(event.raw)) != event.raw]
    assert len(organization.events) / 30 < len(unusual) < len(organization.events) / 5
    for mark in (b"\\/", b"\n", b"\r\n", b"\t", b"\\u00"):
        assert any(mark in raw for raw in unusual), mark
    assert all(json.loads(raw)["object"] == "organization.audit_log" for raw in unusual)


def test_filterable_values_are_those_in_the_bytes(organization: Organization) -> None:
    for event in organization.events:
        body = orjson.loads(event.raw)
        assert (event.id, event.type, event.effective_at) == (body["id"], body["type"], body["effective_at"])
        assert event.project_id == body.get("project", {}).get("id", "")
        assert all(value.encode() in event.raw for value in (*event.actor_ids, *event.resource_ids))
        assert all(value in json.dumps(body["actor"]) for value in event.actor_emails)


def test_a_span_of_no_days_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 day"):
        Organization.build(now=NOW, days=0)
