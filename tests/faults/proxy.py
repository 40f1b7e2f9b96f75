"""A TCP proxy between the shipper and what it talks to. It sees HTTP/1.1 requests go by and spoils those it is told to.

Nothing is decided by time or chance: a rule spoils the n-th request that it knows. What it does is a deed: a coroutine
that gets the exchange and may forward the request, whole or in part, call somebody in between, and relay, cut or
swallow the answer. Messages are read whole before they go on, so keep them small.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlencode, urlsplit

_INSERT = re.compile(r"\s*INSERT INTO `?(?:\w+`?\.`?)?(\w+)")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came: `head` up to and with the empty line, `body` as on the wire, chunks and all."""

    head: bytes
    body: bytes

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode("latin-1")

    @property
    def is_page(self) -> bool:
        """It asks for events of the audit log."""
        return "/organization/audit_logs?" in self.target

    @property
    def table(self) -> str:
        """The table that this request inserts into; empty when it is no insert."""
        [sql] = parse_qs(urlsplit(self.target).query).get("query", [""])
        found = _INSERT.match(sql)
        return found[1] if found else ""

    def with_parameters(self, parameters: Mapping[str, str]) -> Request:
        """The same request with more in its query string."""
        method, target, rest = self.head.split(b" ", 2)
        joint = b"&" if b"?" in target else b"?"
        return Request(b" ".join((method, target + joint + urlencode(parameters).encode(), rest)), self.body)


class Broken(Exception):  # noqa: N818 - says what is the matter
    """The other side went away before the answer was whole."""


@dataclass(slots=True)
class Exchange:
    """One request and the two connections it concerns."""

    request: Request
    _client: asyncio.StreamWriter
    _upstream: _Upstream

    async def send(self, start: float = 0.0, end: float = 1.0, request: Request | None = None) -> None:
        """Forward the request's bytes from one fraction of its body to another; the head goes with the first part."""
        request = request or self.request
        first, last = (int(len(request.body) * part) for part in (start, end))
        await self._upstream.send((b"" if start else request.head) + request.body[first:last])

    async def answer(self) -> bytes:
        """The whole answer to what was forwarded."""
        return await self._upstream.receive()

    async def reply(self, answer: bytes) -> None:
        self._client.write(answer)
        await self._client.drain()

    def close(self, *, reset: bool = False) -> None:
        """Drop both connections, by FIN or by RST. The one to the server is dropped like a dead client's."""
        self._upstream.abort()
        _drop(self._client, reset=reset)


Deed = Callable[[Exchange], Awaitable[None]]


async def relay(exchange: Exchange) -> None:
    """What a proxy without faults does."""
    await exchange.send()
    await exchange.reply(await exchange.answer())


def reply_with(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Deed:
    """Answer in the server's place; it never sees the request."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = f"HTTP/1.1 {status} Fault\r\n{lines}Content-Length: {len(body)}\r\n\r\n"

    async def deed(exchange: Exchange) -> None:
        await exchange.reply(head.encode() + body)

    return deed


def clickhouse_error(code: int, name: str) -> Deed:
    """Answer as ClickHouse does when it refuses."""
    body = f"Code: {code}. DB::Exception: refused by the fault proxy. ({name}) (version 26.7.2.1)\n".encode()
    return reply_with(500, body, {"X-ClickHouse-Exception-Code": str(code), "Content-Type": "text/plain"})


def refuse(*, reset: bool = True) -> Deed:
    """Drop the connection without forwarding anything."""

    async def deed(exchange: Exchange) -> None:
        exchange.close(reset=reset)

    return deed


def cut_request(fraction: float = 0.5) -> Deed:
    """Forward only the beginning of the request, then drop both connections."""

    async def deed(exchange: Exchange) -> None:
        await exchange.send(end=fraction)
        exchange.close()

    return deed


def swallow_answer(*, reset: bool = False) -> Deed:
    """Let the server do its work, then close the connection in place of the answer."""

    async def deed(exchange: Exchange) -> None:
        await exchange.send()
        await exchange.answer()
        exchange.close(reset=reset)

    return deed


def cut_answer(fraction: float = 0.5, *, reset: bool = False) -> Deed:
    """Relay only the beginning of the answer, then drop the connection."""

    async def deed(exchange: Exchange) -> None:
        await exchange.send()
        answer = await exchange.answer()
        head = answer.index(b"\r\n\r\n") + 4
        await exchange.reply(answer[: head + int((len(answer) - head) * fraction)])
        exchange.close(reset=reset)

    return deed


def rewritten(parameters: Mapping[str, str]) -> Deed:
    """Forward the request with more parameters, for a refusal of the real server."""

    async def deed(exchange: Exchange) -> None:
        await exchange.send(request=exchange.request.with_parameters(parameters))
        await exchange.reply(await exchange.answer())

    return deed


def half_way(call: Callable[[], Awaitable[None]]) -> Deed:
    """Forward half of the request's body, call, and go on as if nothing had happened."""

    async def deed(exchange: Exchange) -> None:
        await exchange.send(end=0.5)
        await call()
        await exchange.send(start=0.5)
        await exchange.reply(await exchange.answer())

    return deed


def before(call: Callable[[], Awaitable[None]]) -> Deed:
    """Call when the request has come, then relay it."""

    async def deed(exchange: Exchange) -> None:
        await call()
        await relay(exchange)

    return deed


def unanswered(call: Callable[[], Awaitable[None]]) -> Deed:
    """Let the server do its work, call, and only then relay the answer."""

    async def deed(exchange: Exchange) -> None:
        await exchange.send()
        answer = await exchange.answer()
        await call()
        await exchange.reply(answer)

    return deed


def sent(call: Callable[[], Awaitable[None]]) -> Deed:
    """Forward the whole request and call at once, while the server works on it."""

    async def deed(exchange: Exchange) -> None:
        await exchange.send()
        await call()
        await exchange.reply(await exchange.answer())

    return deed


@dataclass(slots=True)
class Rule:
    """Does `deed` to `count` of the requests that `matches` knows, beginning with the `first` of them (from 1)."""

    name: str
    matches: Callable[[Request], bool]
    deed: Deed
    first: int = 1
    count: int = 1
    seen: int = 0

    def fires(self, request: Request) -> bool:
        if not self.matches(request):
            return False
        self.seen += 1
        return self.first <= self.seen < self.first + self.count


@dataclass(slots=True)
class Proxy:
    """Listens on a free port for as long as the context is open. `done` counts the deeds by the name of their rule."""

    upstream: int
    rules: list[Rule] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    port: int = 0
    _server: asyncio.Server | None = None
    _connections: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def heal(self) -> None:
        """Spoil nothing from now on."""
        self.rules = []

    def spoil(self, rules: Sequence[Rule]) -> None:
        self.rules = list(rules)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        upstream = _Upstream(self.upstream)
        try:
            await self._serve(reader, writer, upstream)
        except (OSError, EOFError, Broken):
            # Whoever went away, the other side learns of it in the same way: the connection is gone.
            pass
        except asyncio.CancelledError:
            pass
        finally:
            upstream.abort()
            _drop(writer)
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: _Upstream) -> None:
        while (message := await _message(reader, request=True)) is not None:
            self.requests += 1
            request = Request(*message)
            rule = next(iter([rule for rule in self.rules if rule.fires(request)]), None)
            if rule is not None:
                self.done[rule.name] += 1
            await (rule.deed if rule else relay)(Exchange(request, writer, upstream))
            if writer.is_closing():
                return


@dataclass(slots=True)
class _Upstream:
    """The connection to the server, opened when it is needed and again when it was lost."""

    port: int
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def send(self, data: bytes) -> None:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        assert self._reader is not None
        message = await _message(self._reader, request=False)
        if message is None:
            raise Broken
        return b"".join(message)

    def abort(self) -> None:
        if self._writer is not None:
            _drop(self._writer)
            self._reader = self._writer = None


def _drop(writer: asyncio.StreamWriter, *, reset: bool = False) -> None:
    if reset and not writer.is_closing():
        # No lingering: the kernel sends RST in place of FIN.
        linger = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    writer.close()


async def _message(reader: asyncio.StreamReader, *, request: bool) -> tuple[bytes, bytes] | None:
    """Head and raw body of the next message, None at the end of the connection. An answer that breaks off is Broken."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial and not request:
            raise Broken from None
        return None
    try:
        if b"chunked" in _header(head, b"transfer-encoding"):
            return head, await _chunks(reader)
        if length := _header(head, b"content-length"):
            return head, await reader.readexactly(int(length))
    except asyncio.IncompleteReadError:
        raise Broken from None
    return head, b""


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    raw = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        raw += line + await reader.readexactly(int(line.split(b";")[0], 16) + 2)
        if raw.endswith(b"0\r\n\r\n") and int(line.split(b";")[0], 16) == 0:
            return raw


def _header(head: bytes, name: bytes) -> bytes:
    """The value of one header, in small letters; empty when it is not there."""
    found = re.search(rb"(?im)^%b:[ \t]*(.*?)[ \t]*\r$" % re.escape(name), head)
    return found[1].lower() if found else b""
