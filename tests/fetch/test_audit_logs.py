"""Draining a window over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from shipper.errors import ApiProtocolError, ApiUnavailable
from shipper.fetch.audit_logs import drain, probe
from shipper.model import Lane, Page, Window
from tests.fetch.api import Answer, client, serve

WINDOW = Window(1_000, 2_000)
BOUNDS = [("effective_at[gte]", "1000"), ("effective_at[lt]", "2000")]


def answer(*events: dict[str, object], more: bool = True, last_id: str | None = None) -> Answer:
    cursor = last_id or (str(events[-1]["id"]) if events else None)
    return Answer(body=json.dumps({"object": "list", "data": events, "has_more": more, "last_id": cursor}).encode())


def event(name: str, at: int = 1_500) -> dict[str, object]:
    return {"id": name, "type": "login.succeeded", "effective_at": at}


def ids(pages: list[Page]) -> list[list[str]]:
    return [[json.loads(raw)["id"] for raw in page.events] for page in pages]


async def collect(source: AsyncIterator[Page], pages: list[Page]) -> None:
    """Keeps what came before an error."""
    async for page in source:
        pages.append(page)  # noqa: PERF401 - a comprehension would lose them


@pytest.mark.parametrize(
    ("lane", "extra"),
    [(Lane.ORGANIZATION, []), (Lane.TENANT, [("tenant_only", "true")])],
    ids=["organization", "tenant"],
)
async def test_a_window_is_drained_page_by_page(lane: Lane, extra: list[tuple[str, str]]) -> None:
    """Half-open bounds, the lane, 100 a page, and `after` from the second page on: these parameters and no others."""
    table = [answer(event("e3"), event("e2")), answer(event("e1")), answer(more=False)]
    async with serve(*table) as api, client(api.url) as admin:
        pages = [page async for page in drain(admin, lane, WINDOW)]
    assert ids(pages) == [["e3", "e2"], ["e1"], []]
    first = [*BOUNDS, *extra, ("limit", "100")]
    assert api.queries == [first, [*first, ("after", "e2")], [*first, ("after", "e1")]]
    assert {request.path for request in api.asked} == {"/v1/organization/audit_logs"}


async def test_a_cursor_with_special_characters_arrives_as_it_was() -> None:
    """It is encoded once."""
    cursor = "a+b/c=&d%20 e é"
    async with serve(answer(event("x"), last_id=cursor), answer(more=False)) as api, client(api.url) as admin:
        pages = [page async for page in drain(admin, Lane.ORGANIZATION, WINDOW, limit=7)]
    assert len(pages) == 2
    assert api.queries[1] == [*BOUNDS, ("limit", "7"), ("after", cursor)]


async def test_events_outside_of_the_window_and_out_of_order_are_given_on() -> None:
    """A server that ignores the bounds loses nothing here."""
    events = [event("old", 1), event("new", 9_999), event("edge", 2_000), event("in")]
    async with serve(answer(*events, more=False)) as api, client(api.url) as admin:
        pages = [page async for page in drain(admin, Lane.ORGANIZATION, WINDOW)]
    assert ids(pages) == [["old", "new", "edge", "in"]]
    assert len(api.asked) == 1


async def test_an_empty_window_asks_for_nothing() -> None:
    """There is no second in it."""
    async with serve() as api, client(api.url) as admin:
        assert [page async for page in drain(admin, Lane.TENANT, Window(5, 5))] == []
    assert api.asked == []


async def test_a_failure_on_the_second_page_keeps_the_first_and_is_raised() -> None:
    """The window is not whole, and cannot be taken for it."""
    pages: list[Page] = []
    async with serve(answer(event("e2")), Answer(500)) as api, client(api.url, retries=1) as admin:
        with pytest.raises(ApiUnavailable):
            await collect(drain(admin, Lane.ORGANIZATION, WINDOW), pages)
    assert ids(pages) == [["e2"]]
    assert len(api.asked) == 3


async def test_a_repeated_cursor_ends_in_an_error_after_its_events() -> None:
    """No endless loop, and no event lost to it."""
    pages: list[Page] = []
    async with serve(answer(event("e1")), answer(event("e0"), last_id="e1")) as api, client(api.url) as admin:
        with pytest.raises(ApiProtocolError, match="'e1' came twice"):
            await collect(drain(admin, Lane.ORGANIZATION, WINDOW), pages)
    assert ids(pages) == [["e1"], ["e0"]]
    assert len(api.asked) == 2


async def test_an_empty_page_that_promises_more_is_asked_for_again() -> None:
    """The same request, and then the rest of the window."""
    table = [answer(event("e2")), answer(more=True), answer(event("e1"), more=False)]
    async with serve(*table) as api, client(api.url) as admin:
        pages = [page async for page in drain(admin, Lane.ORGANIZATION, WINDOW)]
    assert ids(pages) == [["e2"], [], ["e1"]]
    assert api.queries[1] == api.queries[2]


async def test_documents_on_lines_of_one_body_are_one_page() -> None:
    """As one vendor saw them."""
    lines = answer(event("e3"), last_id="e3").body + b"\n" + answer(event("e2"), more=False).body
    async with serve(Answer(body=lines)) as api, client(api.url) as admin:
        pages = [page async for page in drain(admin, Lane.ORGANIZATION, WINDOW)]
    assert ids(pages) == [["e3", "e2"]]
    assert len(api.asked) == 1


@pytest.mark.parametrize(("lane", "extra"), [(Lane.ORGANIZATION, []), (Lane.TENANT, [("tenant_only", "true")])])
async def test_a_probe_is_one_small_request(lane: Lane, extra: list[tuple[str, str]]) -> None:
    """Enough to see that key, scope and network work."""
    async with serve(answer(event("e1"))) as api, client(api.url) as admin:
        page = await probe(admin, lane)
    assert ids([page]) == [["e1"]]
    assert api.queries == [[*extra, ("limit", "1")]]
