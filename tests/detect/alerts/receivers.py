"""A real HTTP server that receives alerts: it answers from a table, keeps what came, and misbehaves on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import RawTestServer


@dataclass(frozen=True)
class Says:
    """One answer. `hang` never gives one; `cut` breaks the connection off, before the answer or within its body."""

    status: int = 200
    body: bytes = b"ok"
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    cut: bool = False
    short: bool = False


class Got:
    """A request as it came."""

    def __init__(self, request: web.BaseRequest, body: bytes) -> None:
        self.method = request.method
        self.path = request.raw_path
        self.headers = request.headers.copy()
        self.body = body


@dataclass
class Receiver:
    """The table, and what came. The last answer is repeated when the table is used up."""

    answers: list[Says]
    url: str = ""
    got: list[Got] = field(default_factory=list)
    then: Callable[[], Any] = lambda: None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.got.append(Got(request, await request.read()))
        answer = self.answers[min(len(self.got), len(self.answers)) - 1]
        self.then()
        if answer.hang:
            await asyncio.Event().wait()
        if answer.cut and request.transport is not None:
            request.transport.abort()
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = len(answer.body) + (10 if answer.short else 0)
        await response.prepare(request)
        await response.write(answer.body)
        if answer.short and request.transport is not None:
            request.transport.close()
        return response


@asynccontextmanager
async def receiving(*answers: Says) -> AsyncIterator[Receiver]:
    """A receiver that gives `answers` in turn."""
    receiver = Receiver(list(answers) or [Says()])
    server = RawTestServer(receiver.handle)
    await server.start_server(shutdown_timeout=0)
    receiver.url = str(server.make_url("")).rstrip("/")
    try:
        yield receiver
    finally:
        await server.close()
