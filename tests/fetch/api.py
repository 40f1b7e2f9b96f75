"""A real HTTP server that answers from a table, and a clock on which nothing waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import RawTestServer
from pydantic import SecretStr

from shipper.config import Settings, SourceSettings
from shipper.fetch.client import AdminClient
from shipper.fetch.ratelimit import RateLimiter
from tests.secrets_scan import canary

KEY = canary("fetch")


class Clock:
    """Time that moves only when somebody sleeps. `slept` holds every pause."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Answer:
    """One answer, and how it goes wrong.

    `length` lies about the body's length; `chunked` sends none; `until_close` lets the end of the connection be the end
    of the body. `reset` breaks the connection off after the body's bytes. `hang` never answers.
    """

    status: int = 200
    body: bytes = b'{"object":"list","data":[],"has_more":false}'
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    chunked: bool = False
    until_close: bool = False
    reset: bool = False
    hang: bool = False


@dataclass
class Api:
    """The table and what was asked. The last answer is repeated when the table is used up."""

    answers: list[Answer]
    asked: list[web.BaseRequest] = field(default_factory=list)
    queries: list[list[tuple[str, str]]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request)
        self.queries.append(list(request.query.items()))
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if answer.hang:
            await asyncio.Event().wait()
        response = web.StreamResponse(status=answer.status, headers={"x-request-id": "req_7", **answer.headers})
        if answer.until_close:
            response.force_close()
        elif answer.chunked:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(answer.body) if answer.length is None else answer.length
        await response.prepare(request)
        await response.write(answer.body)
        if answer.reset and request.transport is not None:
            request.transport.close()
        return response


@asynccontextmanager
async def serve(*answers: Answer) -> AsyncIterator[Api]:
    """An API that gives `answers` in turn."""
    api = Api(list(answers) or [Answer()])
    # Without a router, so that it also sees what a proxy sees: CONNECT and whole addresses.
    server = RawTestServer(api.handle)
    await server.start_server(shutdown_timeout=0)
    api.url = str(server.make_url("/v1"))
    try:
        yield api
    finally:
        await server.close()


def client(
    url: str, clock: Clock | None = None, *, key: str = KEY, organization: str | None = None, **settings: Any
) -> AdminClient:
    """A client that never waits; `clock` notes the pauses before retries. Jitter is at its upper bound."""
    clock = clock or Clock()
    pace = Clock()
    return AdminClient(
        SourceSettings(admin_key=SecretStr(key), base_url=url, organization=organization),
        Settings(**settings),
        limiter=RateLimiter(100.0, clock=pace, sleep=pace.sleep),
        clock=clock,
        sleep=clock.sleep,
        random=lambda: 1.0,
    )
