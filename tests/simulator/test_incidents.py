from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from shipper.simulator import Organization
from shipper.simulator.incidents import LONGEST, STORIES
from tests.simulator.conftest import NOW

NAMES = {
    "failed_sign_ins_then_success",
    "sign_in_from_new_country",
    "ip_allowlist_switched_off",
    "key_made_by_leaver",
    "owner_role_granted",
}


def story(organization: Organization, name: str) -> list[dict[str, Any]]:
    events: Mapping[str, bytes] = {event.id: event.raw for event in organization.events}
    return [orjson.loads(events[event_id]) for event_id in organization.incidents[name]]


def session(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["actor"]["session"]
    return found


def test_every_incident_is_planted(organization: Organization) -> None:
    assert set(organization.incidents) == set(STORIES) == NAMES
    assert all(organization.incidents.values())


@pytest.mark.parametrize("days", [1, 3, 30])
def test_every_incident_is_whole_at_whatever_moment_the_organization_is_looked_at(days: int) -> None:
    shapes = {
        "failed_sign_ins_then_success": ["login.failed"] * 10 + ["login.succeeded"],
        "sign_in_from_new_country": ["login.succeeded"],
        "ip_allowlist_switched_off": ["ip_allowlist.config.deactivated"],
        "key_made_by_leaver": ["login.succeeded", "api_key.created", "user.deleted"],
        "owner_role_granted": ["user.updated"],
    }
    for step in range(40):
        organization = Organization.build(now=NOW + step * days * 2_161, days=days, events_per_day=0)
        for name, expected in shapes.items():
            text = " ".join(body["type"] for body in story(organization, name))
            assert " ".join(expected) in text, (name, step)


def test_a_span_that_begins_inside_an_incident_shows_its_rest() -> None:
    """Otherwise events would vanish from the past as time goes on."""
    days = 3
    earlier = Organization.build(now=NOW, days=days, events_per_day=0)
    (first, *rest) = earlier.incidents["failed_sign_ins_then_success"]
    began = next(event.effective_at for event in earlier.events if event.id == first)
    later = Organization.build(now=began + 1 + days * 86_400 - 3_600, days=days, events_per_day=0)
    assert first not in {event.id for event in later.events}
    assert [event.id for event in later.events[: len(rest)]] == rest


def test_a_burst_of_failures_ends_in_success_from_the_same_address(organization: Organization) -> None:
    *failed, success = story(organization, "failed_sign_ins_then_success")
    assert len(failed) >= 10
    assert {body["type"] for body in failed} == {"login.failed"}
    assert success["type"] == "login.succeeded"
    assert len({session(body)["ip_address"] for body in (*failed, success)}) == 1
    assert len({session(body)["user"]["id"] for body in (*failed, success)}) == 1
    assert success["effective_at"] - failed[0]["effective_at"] < 600


def test_the_new_country_is_new_for_that_user_and_for_everybody(organization: Organization) -> None:
    (odd,) = story(organization, "sign_in_from_new_country")
    country = session(odd)["ip_address_details"]["country"]
    others = [orjson.loads(event.raw) for event in organization.events if event.id != odd["id"]]
    sessions = [session(body) for body in others if (body.get("actor") or {}).get("type") == "session"]
    assert country not in {each["ip_address_details"]["country"] for each in sessions}
    user = session(odd)["user"]["id"]
    homes = {each["ip_address_details"]["country"] for each in sessions if each["user"]["id"] == user}
    assert len(homes) == 1


def test_the_allowlist_is_switched_off_nowhere_else(organization: Organization) -> None:
    off = tuple(event.id for event in organization.events if event.type == "ip_allowlist.config.deactivated")
    assert off == organization.incidents["ip_allowlist_switched_off"]


def test_the_leaver_makes_a_key_and_is_removed_within_the_hour(organization: Organization) -> None:
    signed_in, made, removed = story(organization, "key_made_by_leaver")
    leaver = session(made)["user"]["id"]
    assert session(signed_in)["user"]["id"] == leaver
    assert removed["user.deleted"]["id"] == leaver
    assert session(removed)["user"]["id"] != leaver
    assert 0 < removed["effective_at"] - made["effective_at"] < LONGEST
    assert made["project"]["id"]


def test_the_owner_role_is_granted_nowhere_else(organization: Organization) -> None:
    granted = tuple(event.id for event in organization.events if b'"owner"' in event.raw)
    assert granted == organization.incidents["owner_role_granted"]
