"""The proxy relays what it is not told to spoil, and spoils the request it is told to and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from tests.faults import proxy
from tests.faults.proxy import Deed, Proxy, Rule


@pytest.fixture
async def asked() -> list[bytes]:
    """The bodies that reached the server."""
    return []


@pytest.fixture
async def relaying(asked: list[bytes]) -> AsyncIterator[Proxy]:
    """A proxy before a server that repeats the body it gets."""

    async def echo(request: web.Request) -> web.Response:
        asked.append(await request.read())
        return web.Response(body=asked[-1], headers={"X-Query": request.query_string})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with Proxy(runner.addresses[0][1]) as running:
        yield running
    await runner.cleanup()


async def post(to: Proxy, body: bytes, *, chunked: bool = False) -> tuple[int, bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        yield body[: len(body) // 2]
        yield body[len(body) // 2 :]

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{to.port}/", data=pieces() if chunked else body) as answer,
    ):
        return answer.status, await answer.read()


@pytest.mark.parametrize("chunked", [False, True])
async def test_what_is_not_spoilt_is_relayed(relaying: Proxy, *, chunked: bool) -> None:
    assert await post(relaying, b"abc" * 1000, chunked=chunked) == (200, b"abc" * 1000)
    assert (relaying.requests, relaying.done.total()) == (1, 0)


async def test_a_rule_meets_the_requests_it_counts_to(relaying: Proxy) -> None:
    relaying.spoil([Rule("no", lambda _: True, proxy.reply_with(503, b"no"), first=2, count=2)])
    assert [(await post(relaying, b"x"))[0] for _ in range(5)] == [200, 503, 503, 200, 200]
    assert relaying.done == {"no": 2}
    relaying.heal()
    assert await post(relaying, b"x") == (200, b"x")


@pytest.mark.parametrize(
    ("deed", "reached"),
    [
        (proxy.refuse(), []),
        (proxy.refuse(reset=False), []),
        (proxy.cut_request(), []),
        (proxy.swallow_answer(), [b"0123456789"]),
        (proxy.swallow_answer(reset=True), [b"0123456789"]),
        (proxy.cut_answer(), [b"0123456789"]),
        (proxy.cut_answer(reset=True), [b"0123456789"]),
    ],
)
async def test_a_connection_that_ends_is_an_error_for_the_client(
    relaying: Proxy, asked: list[bytes], deed: Deed, reached: list[bytes]
) -> None:
    """And the server has, or has not, done its work by then."""
    relaying.spoil([Rule("end", lambda _: True, deed)])
    with pytest.raises(aiohttp.ClientError):
        await post(relaying, b"0123456789", chunked=True)
    assert asked == reached


@pytest.mark.parametrize(
    ("hook", "reached"),
    [(proxy.before, 0), (proxy.half_way, 0), (proxy.unanswered, 1)],
)
async def test_somebody_is_called_in_between(relaying: Proxy, asked: list[bytes], hook: object, reached: int) -> None:
    """Before the request, in its middle, or before its answer; it is relayed whole all the same, once."""
    seen: list[int] = []

    async def call() -> None:
        await asyncio.sleep(0)
        seen.append(len(asked))

    assert callable(hook)
    relaying.spoil([Rule("call", lambda _: True, hook(call))])
    assert await post(relaying, b"0123456789") == (200, b"0123456789")
    assert (seen, asked) == ([reached], [b"0123456789"])


async def test_a_request_is_rewritten_on_its_way(relaying: Proxy) -> None:
    relaying.spoil([Rule("more", lambda _: True, proxy.rewritten({"max_memory_usage": "1"}))])
    async with aiohttp.ClientSession() as session:
        for path, query in (("/?a=b", "a=b&max_memory_usage=1"), ("/", "")):
            async with session.get(f"http://127.0.0.1:{relaying.port}{path}") as answer:
                assert answer.headers["X-Query"] == query
