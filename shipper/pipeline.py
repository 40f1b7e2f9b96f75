"""The order of the stages: fetch, normalize, enrich, load. The only file that knows it.

Feeds read pages and put them on a belt; one loader takes them off, turns them into rows and hands the rows to the
writer. Two batches are written at the same time, while the next one is prepared. The writer acknowledges, and only when
it has acknowledged as many events of a window as arrived does the ledger get the window. Memory is bounded by one page
per feed, the belt and three batches, however many events there are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shipper.enrich import Enricher
from shipper.errors import AccountingError, ApiRefused, ApiRejected, ExitCode, ShipperError
from shipper.fetch.archive import stream_archive
from shipper.fetch.audit_logs import drain
from shipper.fetch.client import AdminClient
from shipper.fetch.paging import moments
from shipper.fetch.sizing import Piece, Work
from shipper.load.batches import Batch, Delivery
from shipper.load.writer import Writer
from shipper.model import DeadLetter, Lane, Page, RawEvent, Row, Source
from shipper.normalize import normalize
from shipper.stopping import raise_when
from shipper.telemetry import LaneReport, logger

# The API says in one of these that it will not answer the tenant question. A 401 is about the key itself.
_LANE_REFUSED = frozenset({400, 403, 404})

# After a failure or a signal: how long the rows that the writer has may take to be written, in seconds.
LAST_FLUSH = 15.0

# Bytes of events between the feeds and the loader, at most. A page that is larger travels alone.
_BELT_BYTES = 4 * 1024 * 1024

# Batches that are being written while the next one is prepared.
_INSERTS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Arrival:
    """What travels from fetch to load. Without a page it says that the delivery, begun at `at`, is at its end."""

    delivery: Delivery
    page: Page | None
    at: int


Feed = AsyncGenerator[Arrival]
Clock = Callable[[], float]


async def ship(feeds: Sequence[Feed], enricher: Enricher, writer: Writer, stop: asyncio.Event) -> None:
    """Run the stages until every feed has ended and every row is acknowledged.

    Raises the gravest of the errors that ended it, or Interrupted once `stop` is set. Rows that the writer has by then
    are still written, if that takes no longer than LAST_FLUSH; pages on their way to it are read again by the next run.
    """
    belt = _Belt(_BELT_BYTES)
    try:
        async with asyncio.TaskGroup() as stages:
            stopper = stages.create_task(raise_when(stop))
            loader = stages.create_task(_load(belt, enricher, writer))
            await stages.create_task(_fill_all(belt, feeds))
            await belt.put(None)
            await loader
            stopper.cancel()
    except BaseExceptionGroup as group:
        try:
            async with asyncio.timeout(LAST_FLUSH):
                await writer.flush()
        except AccountingError:
            raise  # Graver than whatever else has ended it.
        except (ShipperError, TimeoutError) as error:
            logger().warning("rows received but not written; the next run reads them again", reason=str(error))
        gravest = _gravest(group)
        raise gravest from gravest.__cause__


class _Belt:
    """A queue of arrivals that is bounded by the bytes of their events."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._arrivals: deque[tuple[Arrival | None, int]] = deque()
        self._changed = asyncio.Condition()

    async def put(self, arrival: Arrival | None) -> None:
        size = sum(map(len, arrival.page.events)) if arrival is not None and arrival.page is not None else 0
        async with self._changed:
            await self._changed.wait_for(lambda: not self._bytes or self._bytes + size <= self._limit)
            self._bytes += size
            self._arrivals.append((arrival, size))
            self._changed.notify_all()

    async def get(self) -> Arrival | None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._arrivals)
            arrival, size = self._arrivals.popleft()
            self._bytes -= size
            self._changed.notify_all()
            return arrival


@dataclass(frozen=True, slots=True)
class Reading:
    """What the feeds of one source share: its lanes, and the work that is left."""

    source: Source
    clients: Mapping[Lane, AdminClient]
    reports: Mapping[Lane, LaneReport]
    work: Work
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self._count()

    async def take(self) -> Piece | None:
        """The next window; None when there will be no more. Waits while one that is being read may be given up."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.work.waiting or self.work.ended)
            piece = self.work.take() if self.work.waiting else None
            self._count()
            return piece

    async def too_full(self, piece: Piece, first: Page) -> bool:
        """Whether the first page of a window says so. Its time then waits to be taken again."""
        async with self._telling():
            return self.work.first_page(piece, moments(first), len(first.events), has_more=first.has_more)

    async def drained(self, piece: Piece, events: int) -> None:
        async with self._telling():
            self.work.drained(piece, events)

    async def leave_out(self, lane: Lane) -> None:
        """Read nothing more of a lane."""
        async with self._telling():
            self.work.leave_out(lane)

    @asynccontextmanager
    async def _telling(self) -> AsyncGenerator[None]:
        async with self._changed:
            yield
            self._count()
            self._changed.notify_all()

    def _count(self) -> None:
        for lane, report in self.reports.items():
            report.windows = self.work.windows[lane]


async def windows(reading: Reading, clock: Clock) -> Feed:
    """Drain windows until there are none left. Several feeds share a reading.

    The page of a window that is given up arrives like any other, and its delivery has no end: nothing claims it.

    A tenant lane that is refused from the start is marked and left out. One that gave pages before is an error.
    """
    while (piece := await reading.take()) is not None:
        lane, report = piece.lane, reading.reports[piece.lane]
        delivery = Delivery(reading.source, lane, piece.window, report)
        begun = int(clock())
        events, given_up = 0, False
        try:
            async with aclosing(drain(reading.clients[lane], lane, piece.window)) as pages:
                async for page in pages:
                    given_up = not events and await reading.too_full(piece, page)
                    yield Arrival(delivery, page, int(clock()))
                    if given_up:
                        break
                    events += len(page.events)
        except (ApiRefused, ApiRejected) as error:
            if lane is not Lane.TENANT or error.status not in _LANE_REFUSED or report.pages:
                raise
            report.status, report.error = "refused", str(error)
            await reading.leave_out(lane)
        else:
            if not given_up:
                await reading.drained(piece, events)
                yield Arrival(delivery, None, begun)


async def archives(paths: Iterable[Path | None], delivery: Delivery, clock: Clock) -> Feed:
    """Read NDJSON archives one after the other; None is standard input."""
    begun = int(clock())
    for path in paths:
        async with aclosing(stream_archive(path)) as pages:
            async for page in pages:
                yield Arrival(delivery, page, int(clock()))
    yield Arrival(delivery, None, begun)


async def letters(chosen: Sequence[tuple[Delivery, bytes]], clock: Clock) -> Feed:
    """Read dead letters once more, each with a delivery of its own, so that it shows which became a row."""
    for delivery, raw in chosen:
        yield Arrival(delivery, Page((raw,)), int(clock()))


async def _fill_all(belt: _Belt, feeds: Sequence[Feed]) -> None:
    """Run this in a task of its own: before Python 3.13 a group that fails while it waits for its end leaves its task
    marked as cancelled, and a timeout round it no longer knows its own cancellation.
    """
    async with asyncio.TaskGroup() as feeding:
        for feed in feeds:
            feeding.create_task(_fill(belt, feed))


async def _fill(belt: _Belt, feed: Feed) -> None:
    """Move arrivals onto the belt. What arrives is counted here, what is acknowledged in the writer."""
    async with aclosing(feed):
        async for arrival in feed:
            if arrival.page is not None:
                arrival.delivery.arrived += len(arrival.page.events)
                arrival.delivery.report.pages += 1
                arrival.delivery.report.received += len(arrival.page.events)
            await belt.put(arrival)


async def _load(belt: _Belt, enricher: Enricher, writer: Writer) -> None:
    """Take arrivals off the belt until its end. While some batches are being written, the next one is prepared."""
    slots = asyncio.Semaphore(_INSERTS_AT_ONCE)

    async def write(batch: Batch) -> None:
        await writer.write(batch)
        slots.release()

    async with asyncio.TaskGroup() as inserts:
        arrival: Arrival | None = None
        while True:
            try:
                async with asyncio.timeout_at(writer.due):
                    arrival = await belt.get()
            except TimeoutError:
                pass
            else:
                if arrival is not None:
                    await enricher.refresh()
                    _prepare(arrival, enricher, writer)
                    if not writer.full:
                        continue
            for batch in writer.take():
                await slots.acquire()
                inserts.create_task(write(batch))
            if arrival is None:
                return


def _prepare(arrival: Arrival, enricher: Enricher, writer: Writer) -> None:
    delivery, report = arrival.delivery, arrival.delivery.report
    if arrival.page is None:
        report.windows_read += 1
        writer.drained(delivery, arrival.at)
        return
    rows, dead_letters = _normalize(arrival, arrival.page)
    enricher.enrich(rows)
    report.newest = max([report.newest, *(row.event_time for row in rows)])
    writer.add(delivery, rows, dead_letters)


def _normalize(arrival: Arrival, page: Page) -> tuple[list[Row], list[DeadLetter]]:
    delivery = arrival.delivery
    rows: list[Row] = []
    dead_letters: list[DeadLetter] = []
    for raw in page.events:
        result = normalize(RawEvent(raw, delivery.lane, delivery.source, arrival.at))
        if isinstance(result, Row):
            rows.append(result)
        else:
            dead_letters.append(result)
    return rows, dead_letters


_GRAVEST_FIRST = (
    ExitCode.SOFTWARE,
    ExitCode.CONFIG,
    ExitCode.NOPERM,
    ExitCode.USAGE,
    ExitCode.DATAERR,
    ExitCode.UNAVAILABLE,
    ExitCode.TEMPFAIL,
)


def gravity(error: BaseException) -> int:
    """A sort key, the gravest first: a bug, then what an operator must mend, then what may pass by itself."""
    return _GRAVEST_FIRST.index(error.exit_code) if isinstance(error, ShipperError) else -1


def _gravest(group: BaseExceptionGroup[BaseException]) -> BaseException:
    return min(
        (_gravest(error) if isinstance(error, BaseExceptionGroup) else error for error in group.exceptions),
        key=gravity,
    )
