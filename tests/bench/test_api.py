"""The benchmark's API against the simulator, whose answers it has to give."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlencode

import aiohttp
import pytest

from shipper.simulator import Organization, Simulator
from tests.bench import corpus
from tests.bench.api import Pages, Server
from tests.bench.corpus import Event
from tests.organizations import DAY, KEY, NOW

ORGANIZATION = Organization.build(3, now=NOW, days=3, events_per_day=150)
EVENTS = [Event(one.effective_at, one.id, one.lane, one.raw) for one in ORGANIZATION.events]
LOGS = "organization/audit_logs"


def queries() -> Iterator[dict[str, str]]:
    """Both lanes; all time, one day, an empty stretch; pages of several sizes."""
    stretches: tuple[dict[str, str], ...] = (
        {},
        {"effective_at[gte]": str(NOW - 2 * DAY), "effective_at[lt]": str(NOW - DAY)},
        {"effective_at[gt]": str(NOW - 2 * DAY), "effective_at[lte]": str(NOW - DAY)},
        {"effective_at[gte]": str(NOW + DAY), "effective_at[lt]": str(NOW + 2 * DAY)},
    )
    for stretch in stretches:
        for lane in ({}, {"tenant_only": "true"}, {"tenant_only": "false"}):
            for size in ({}, {"limit": "7"}, {"limit": "100"}):
                yield {**stretch, **lane, **size}


async def body(session: aiohttp.ClientSession, base_url: str, query: dict[str, str]) -> tuple[int, bytes]:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with session.get(f"{base_url}/{LOGS}?{urlencode(query)}", headers=headers) as answer:
        return answer.status, await answer.read()


async def test_every_page_is_the_simulators_to_the_byte() -> None:
    """Page after page to the end of every query, and then what is refused."""
    server = Server(Pages(EVENTS))
    listening, port = await server.listen()
    fast = f"http://127.0.0.1:{port}/v1"
    refused = ({"limit": "101"}, {"limit": "x"}, {"after": "audit_log-unknown"}, {"surprise": "1"})
    pages = 0
    async with listening, Simulator(ORGANIZATION) as simulator, aiohttp.ClientSession() as session:
        for first in queries():
            query = first
            while True:
                wanted = await body(session, simulator.base_url, query)
                assert await body(session, fast, query) == wanted
                pages += 1
                page = json.loads(wanted[1])
                if not page["has_more"]:
                    break
                query = {**first, "after": page["last_id"]}
        for query in refused:
            status, said = await body(session, simulator.base_url, query)
            assert (status, said) == await body(session, fast, query)
            assert status == 400
    assert len(server.asked) == pages + len(refused)
    assert server.asked == sorted(server.asked)


async def test_orders_change_the_latency_and_tell_the_requests_once() -> None:
    server = Server(Pages(EVENTS))
    assert server.answer("/v1/organization/audit_logs", "limit=1")[2] == 0.0
    assert server.answer("/bench/latency", "seconds=0.25") == (200, b"{}", 0.0)
    assert server.answer("/v1/organization/audit_logs", "limit=1")[2] == 0.25
    assert server.answer("/bench/requests", "")[1].count(b",") == 1
    assert server.answer("/bench/requests", "")[1] == b"[]"
    assert server.answer("/v1/organization/users", "")[0] == 404


async def test_requests_that_come_in_pieces_or_together_are_answered_in_order() -> None:
    """A client may send its request in two packets, or the next one at once."""
    server = Server(Pages(EVENTS))
    listening, port = await server.listen()
    request = b"GET /v1/organization/audit_logs?limit=1 HTTP/1.1\r\nHost: x\r\n\r\n"
    whole = server.pages.answer("limit=1")[1]
    async with listening:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)  # noqa: FBT003 - that is its name
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, request[:30])
            await loop.sock_sendall(client, request[30:] + request)
            received = b""
            while received.count(whole) < 2:
                received += await loop.sock_recv(client, 65536)
    assert received.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("count", [1, 10, 1500])
def test_a_corpus_has_exactly_the_events_asked_for_and_the_same_each_time(count: int) -> None:
    """Over thirty days, oldest first, no id twice, one line each."""
    events = corpus.events(count)
    assert len(events) == count
    assert events == sorted(events)
    assert events == corpus.events(count)
    assert len({event.id for event in events}) == count
    assert not any(b"\n" in event.raw for event in events)
    if count == 1500:
        assert events[-1].at - events[0].at > 28 * DAY


def test_more_events_than_originals_are_copies_under_other_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "_ORIGINALS", 100)
    events = corpus.events(250)
    assert len(events) == len({event.id for event in events}) == 250
    assert all(event.id.encode() in event.raw for event in events)
