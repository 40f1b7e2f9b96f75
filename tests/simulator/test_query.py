"""The filters, against a model that looks at every event's JSON and knows nothing of the index."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from shipper.model import MAX_TIME, Lane
from shipper.simulator import Organization
from shipper.simulator.catalog import lanes
from shipper.simulator.log import EventLog, Page, as_body, as_documents
from shipper.simulator.query import BadRequest, Query, parse_query

Body = dict[str, Any]


def parse(*params: tuple[str, object]) -> Query | BadRequest:
    return parse_query(urlencode(params), lanes())


def people(body: Body) -> list[Body]:
    actor = body.get("actor") or {}
    key = actor.get("api_key", {})
    return [actor.get("session", {}).get("user", {}), key.get("user", {}), key.get("service_account", {}), key]


def targets(body: Body) -> set[str]:
    payload = body.get(body["type"]) or {}
    listed = [*payload.get("certificates", ()), *payload.get("configs", ())]
    return {each["id"] for each in (payload, *listed) if "id" in each}


FILTERS: dict[str, Callable[[Body, set[str]], bool]] = {
    "project_ids[]": lambda body, wanted: body.get("project", {}).get("id") in wanted,
    "event_types[]": lambda body, wanted: body["type"] in wanted,
    "actor_ids[]": lambda body, wanted: bool(wanted & {who.get("id") for who in people(body)}),
    "actor_emails[]": lambda body, wanted: bool(wanted & {who.get("email") for who in people(body)}),
    "resource_ids[]": lambda body, wanted: bool(wanted & targets(body)),
}
BOUNDS: dict[str, Callable[[int, int], bool]] = {
    "effective_at[gt]": lambda at, bound: at > bound,
    "effective_at[gte]": lambda at, bound: at >= bound,
    "effective_at[lt]": lambda at, bound: at < bound,
    "effective_at[lte]": lambda at, bound: at <= bound,
}


def values_of(body: Body) -> dict[str, list[str]]:
    """For each filter, what one event would be found by."""
    return {
        "project_ids[]": [body.get("project", {}).get("id", "")],
        "event_types[]": [body["type"]],
        "actor_ids[]": [who["id"] for who in people(body) if "id" in who],
        "actor_emails[]": [who["email"] for who in people(body) if "email" in who],
        "resource_ids[]": sorted(targets(body)),
    }


def expected(bodies: list[Body], params: list[tuple[str, object]]) -> list[str]:
    """The ids that pass every filter, newest first, ties by id downwards."""
    found = []
    for body in bodies:
        sets: dict[str, set[str]] = {}
        for name, value in params:
            if name in FILTERS:
                sets.setdefault(name, set()).add(str(value))
        bounds = [BOUNDS[name](body["effective_at"], int(str(value))) for name, value in params if name in BOUNDS]
        if all(bounds) and all(FILTERS[name](body, wanted) for name, wanted in sets.items()):
            found.append((body["effective_at"], body["id"]))
    return [event_id for _, event_id in sorted(found, reverse=True)]


def listed(log: EventLog, params: list[tuple[str, object]]) -> list[str]:
    """Every page of the log, by the cursor."""
    ids: list[str] = []
    cursor: list[tuple[str, object]] = []
    while True:
        query = parse(*params, *cursor)
        assert isinstance(query, Query), query
        page = log.page(query)
        assert isinstance(page, Page), page
        assert len(page.events) <= query.limit
        ids += [event.id for event in page.events]
        if not page.has_more:
            return ids
        cursor = [("after", page.last_id)]


@pytest.mark.parametrize("lane", [Lane.ORGANIZATION, Lane.TENANT])
@pytest.mark.parametrize("seed", range(20))
def test_filters_find_what_a_look_at_every_event_finds(organization: Organization, lane: Lane, seed: int) -> None:
    rng = Random(seed)
    bodies = [orjson.loads(event.raw) for event in organization.lane(lane)]
    log = EventLog(organization.events)
    params: list[tuple[str, object]] = [("limit", rng.randint(1, 100))]
    if lane is Lane.TENANT:
        params.append(("tenant_only", "true"))
    for name in rng.sample(sorted(FILTERS), rng.randint(0, 2)):
        for body in rng.sample(bodies, 3):
            params += [(name, value) for value in values_of(body)[name]]
    for name in rng.sample(sorted(BOUNDS), rng.randint(0, 3)):
        params.append((name, rng.choice(bodies)["effective_at"] + rng.randint(-1, 1)))
    assert listed(log, params) == expected(bodies, params)


def test_no_filter_lists_the_whole_lane_and_nothing_of_the_other(organization: Organization) -> None:
    log = EventLog(organization.events)
    for lane, tenant in ((Lane.ORGANIZATION, "false"), (Lane.TENANT, "true")):
        ids = listed(log, [("limit", 100), ("tenant_only", tenant)])
        assert ids == [event.id for event in reversed(organization.lane(lane))]


def test_bounds_are_exclusive_and_inclusive_as_documented(organization: Organization) -> None:
    log = EventLog(organization.events)
    event = organization.lane(Lane.ORGANIZATION)[500]
    at = event.effective_at
    assert event.id in listed(log, [("effective_at[gte]", at), ("effective_at[lte]", at)])
    assert listed(log, [("effective_at[gt]", at), ("effective_at[lte]", at)]) == []
    assert listed(log, [("effective_at[gte]", at), ("effective_at[lt]", at)]) == []
    assert listed(log, [("effective_at[gte]", at + 1), ("effective_at[lt]", at)]) == []


def test_events_of_one_second_keep_one_order_across_pages(organization: Organization) -> None:
    log = EventLog([])
    same = [replace(event, effective_at=1_000) for event in organization.lane(Lane.ORGANIZATION)[:50]]
    for event in same:
        log.add(event)
    ids = sorted((event.id for event in same), reverse=True)
    for limit in (1, 7, 49, 50, 51):
        assert listed(log, [("limit", limit)]) == ids


def test_before_gives_the_page_of_newer_events(organization: Organization) -> None:
    log = EventLog(organization.events)
    ids = [event.id for event in reversed(organization.lane(Lane.ORGANIZATION))]
    page = log.page(Query(before=ids[50], limit=10))
    assert isinstance(page, Page)
    assert [event.id for event in page.events] == ids[40:50]
    assert page.has_more
    newest = log.page(Query(before=ids[3], limit=10))
    assert isinstance(newest, Page)
    assert [event.id for event in newest.events] == ids[:3]
    assert not newest.has_more
    between = log.page(Query(after=ids[10], before=ids[50], limit=100))
    assert isinstance(between, Page)
    assert [event.id for event in between.events] == ids[11:50]


def test_pages_do_not_shift_when_a_newer_event_appears(organization: Organization) -> None:
    events = organization.lane(Lane.ORGANIZATION)
    log = EventLog(events[:-1])
    first = log.page(Query(limit=10))
    assert isinstance(first, Page)
    log.add(events[-1])
    second = log.page(Query(limit=10, after=first.last_id))
    assert isinstance(second, Page)
    ids = [event.id for event in reversed(events)]
    assert [event.id for event in (*first.events, *second.events)] == ids[1:21]


@pytest.mark.parametrize("cursor", ["after", "before"])
def test_a_full_page_that_is_the_last_one_says_so(organization: Organization, cursor: str) -> None:
    events = organization.lane(Lane.ORGANIZATION)[:21]
    edge = events[-1] if cursor == "after" else events[0]
    query = parse((cursor, edge.id), ("limit", 20))
    assert isinstance(query, Query)
    rest = events[:-1] if cursor == "after" else events[1:]
    assert EventLog(events).page(query) == Page(rest[::-1], has_more=False)
    assert EventLog(events).page(replace(query, limit=19)) == Page(
        rest[:0:-1] if cursor == "after" else rest[18::-1], has_more=True
    )


def test_an_id_appears_once(organization: Organization) -> None:
    log = EventLog(organization.events)
    with pytest.raises(ValueError, match="already"):
        log.add(organization.events[0])


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ([("limit", "0")], "limit"),
        ([("limit", "101")], "limit"),
        ([("limit", "-1")], "limit"),
        ([("limit", "")], "limit"),
        ([("limit", "1e2")], "limit"),
        ([("limit", "٣")], "limit"),
        ([("limit", "9" * 5000)], "limit"),
        ([("effective_at[gt]", "yesterday")], "effective_at[gt]"),
        ([("effective_at[lte]", "1.5")], "effective_at[lte]"),
        ([("tenant_only", "True")], "tenant_only"),
        ([("event_types[]", "login.succeeded"), ("event_types[]", "no.such.type")], "event_types[]"),
        ([("event_types[]", "login.succeeded"), ("tenant_only", "true")], "event_types[]"),
        ([("event_types", "login.succeeded")], "event_types"),
        ([("order", "asc")], "order"),
    ],
)
def test_a_value_that_is_not_documented_is_refused_by_name(params: list[tuple[str, object]], param: str) -> None:
    refused = parse(*params)
    assert isinstance(refused, BadRequest)
    assert (refused.status, refused.param) == (400, param)
    assert param in refused.message or "event type" in refused.message


def test_the_defaults_are_the_documented_ones() -> None:
    assert parse() == Query(Lane.ORGANIZATION, 0, MAX_TIME + 1, limit=20)
    assert parse(("limit", "100"), ("tenant_only", "true")) == Query(Lane.TENANT, limit=100)


@pytest.mark.parametrize("name", ["after", "before"])
def test_a_cursor_from_nowhere_or_from_the_other_lane_is_refused(organization: Organization, name: str) -> None:
    log = EventLog(organization.events)
    for cursor in ("audit_log-none", organization.lane(Lane.TENANT)[0].id):
        query = parse((name, cursor))
        assert isinstance(query, Query)
        refused = log.page(query)
        assert isinstance(refused, BadRequest)
        assert refused.param == name


def test_a_page_holds_the_bytes_of_its_events_unchanged(organization: Organization) -> None:
    page = Page(organization.events[:20], has_more=True)
    body = as_body(page)
    assert all(event.raw in body for event in page.events)
    document = orjson.loads(body)
    assert [event["id"] for event in document["data"]] == [event.id for event in page.events]
    rest = {name: value for name, value in document.items() if name != "data"}
    first, last = page.events[0].id, page.events[-1].id
    assert rest == {"object": "list", "first_id": first, "last_id": last, "has_more": True}
    empty: Body = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert orjson.loads(as_body(Page((), has_more=False))) == empty


@pytest.mark.parametrize("size", [0, 1, 2, 3, 20])
def test_documents_hold_the_same_events_and_end_as_the_page_ends(organization: Organization, size: int) -> None:
    page = Page(organization.events[:size], has_more=False)
    body = as_documents(page, 3)
    assert all(event.raw in body for event in page.events)
    assert body.count(b'{"object":"list"') == max(1, min(size, 3))
    assert body.endswith(b'"has_more":false}')
    assert body.count(b'"has_more":true}\n{') == max(0, min(size, 3) - 1)
