"""A fast audit log API: the simulator's answers, byte for byte, at a fraction of its cost.

The events of a lane lie in one piece of memory in the order of the answers, so that the body of any page is a slice of
it between a head and a tail. What is measured beside it on the same cores is then the client.

    python -m tests.bench.api EVENTS.ndjson     prints the port it listens on

Under /bench it takes orders: `latency?seconds=0.1` for every page from then on, and `requests`, which answers with the
moments (of the monotonic clock) of the pages asked for since the last time.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qs, unquote_to_bytes

import orjson

from shipper.model import Lane
from shipper.simulator.catalog import lanes
from shipper.simulator.query import BadRequest, Query, parse_query
from shipper.simulator.server import AUDIT_LOGS, problem
from tests.bench.corpus import Event, read


class _Lane:
    """The events of one lane: `times` and `ids` oldest first, the bytes newest first with a comma behind each."""

    def __init__(self, events: Iterable[Event]) -> None:
        ordered = sorted(events, key=lambda event: (event.at, event.id))
        self.times = [event.at for event in ordered]
        self.ids = [event.id for event in ordered]
        self.place = {name: index for index, name in enumerate(self.ids)}
        self.bytes = memoryview(b"".join(event.raw + b"," for event in reversed(ordered)))
        # ends[i] is where the bytes of event i end, its comma included; those of the next newer one end before it.
        self.ends = [0] * (len(ordered) + 1)
        end = 0
        for index in range(len(ordered) - 1, -1, -1):
            end += len(ordered[index].raw) + 1
            self.ends[index] = end


class Pages:
    """Every answer there is. Only the parameters that name a lane, a time, a cursor and a size are known."""

    def __init__(self, events: Iterable[Event]) -> None:
        every = list(events)
        self._lanes = {
            lane: _Lane(event for event in every if event.lane is lane) for lane in (Lane.ORGANIZATION, Lane.TENANT)
        }

    def answer(self, query_string: str) -> tuple[int, bytes]:
        """Status and body."""
        query = parse_query(query_string, lanes())
        if isinstance(query, BadRequest):
            return _refused(query)
        if query.filtered or query.before is not None:
            raise NotImplementedError("the benchmark's API has neither filters nor `before`")
        return self._page(query)

    def _page(self, query: Query) -> tuple[int, bytes]:
        lane = self._lanes[query.lane]
        low, high = bisect_left(lane.times, query.since), bisect_left(lane.times, query.until)
        if query.after is not None:
            place = lane.place.get(query.after)
            if place is None:
                return _refused(BadRequest(f"Invalid 'after': no audit log with id '{query.after}'.", "after"))
            high = min(high, place)
        if high <= low:
            return 200, b'{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":false}'
        last = max(low, high - query.limit)
        return 200, b'{"object":"list","data":[%b],"first_id":"%b","last_id":"%b","has_more":%b}' % (
            lane.bytes[lane.ends[high] : lane.ends[last] - 1],  # type: ignore[str-format]
            lane.ids[high - 1].encode(),
            lane.ids[last].encode(),
            b"true" if last > low else b"false",
        )


def _refused(bad: BadRequest) -> tuple[int, bytes]:
    return bad.status, problem(
        bad.status, bad.message, kind="invalid_request_error", param=bad.param, code=bad.code
    ).body


class Server:
    """What the connections share."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.latency = 0.0
        self.asked: list[float] = []

    async def listen(self) -> tuple[asyncio.Server, int]:
        """On a free port of this machine; returns the port too."""
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        return server, port

    def answer(self, path: str, query_string: str) -> tuple[int, bytes, float]:
        """Status, body and how long to wait with it."""
        if path == AUDIT_LOGS:
            self.asked.append(time.monotonic())
            return (*self.pages.answer(query_string), self.latency)
        if path == "/bench/latency":
            self.latency = float(parse_qs(query_string)["seconds"][0])
            return 200, b"{}", 0.0
        if path == "/bench/requests":
            asked, self.asked = self.asked, []
            return 200, orjson.dumps(asked), 0.0
        return 404, b'{"error":"not found"}', 0.0


class _Connection(asyncio.Protocol):
    """As much HTTP/1.1 as these clients speak: GET without a body, kept alive, one request at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, self._received = self._received.split(b"\r\n\r\n", 1)
            method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
            path, _, query_string = target.partition(b"?")
            if method == b"GET":
                status, body, pause = self._server.answer(unquote_to_bytes(path).decode(), query_string.decode())
            else:
                status, body, pause = 405, b'{"error":"GET only"}', 0.0
            answer = b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
                status,
                len(body),
                body,
            )
            if pause:
                asyncio.get_running_loop().call_later(pause, self._send, answer)
            else:
                self._send(answer)

    def _send(self, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(answer)


async def _serve(path: Path) -> None:
    server, port = await Server(Pages(read(path))).listen()
    gc.collect()
    gc.freeze()
    print(port, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
