"""The order of the stages: fetch, normalize, enrich, load. The only file that knows it.

Feeds read pages and put them on a bounded queue; one loader takes them off, turns them into rows and hands the rows to
the writer. The writer acknowledges, and only then does the ledger get the window. Memory is bounded by the queue, the
windows in flight and one batch, however many events there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from shipper.enrich import Enricher
from shipper.errors import ApiRefused, ApiRejected, ExitCode, Interrupted, ShipperError
from shipper.fetch.archive import read_archive
from shipper.fetch.audit_logs import drain
from shipper.fetch.client import AdminClient
from shipper.load.writer import Delivery, Writer
from shipper.model import DeadLetter, Lane, Page, RawEvent, Row
from shipper.normalize import normalize
from shipper.telemetry import logger

# The API says in one of these that it will not answer the tenant question. A 401 is about the key itself.
_LANE_REFUSED = frozenset({400, 403, 404})

# After a failure or a signal: how long the rows already received may take to be written, in seconds.
_LAST_FLUSH = 20.0


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

    Raises the gravest of the errors that ended it, or Interrupted once `stop` is set. Rows received by then are still
    written, if that takes no longer than a pod is given to end.
    """
    queue: asyncio.Queue[Arrival | None] = asyncio.Queue(maxsize=2 * len(feeds))
    try:
        async with asyncio.TaskGroup() as stages:
            stopper = stages.create_task(raise_when(stop))
            loader = stages.create_task(_load(queue, enricher, writer))
            async with asyncio.TaskGroup() as feeding:
                for feed in feeds:
                    feeding.create_task(_fill(queue, feed))
            await queue.put(None)
            await loader
            stopper.cancel()
    except BaseExceptionGroup as group:
        try:
            async with asyncio.timeout(_LAST_FLUSH):
                await writer.flush()
        except (ShipperError, TimeoutError) as error:
            logger().warning("rows received but not written; the next run reads them again", reason=str(error))
        raise _gravest(group) from None


async def windows(work: Iterator[Delivery], clients: Mapping[Lane, AdminClient], clock: Clock) -> Feed:
    """Drain windows of the shared `work` until there are none left. A refused tenant lane is marked and left out."""
    for delivery in work:
        if delivery.report.status == "refused" or delivery.window is None:
            continue
        begun = int(clock())
        try:
            async with aclosing(drain(clients[delivery.lane], delivery.lane, delivery.window)) as pages:
                async for page in pages:
                    yield Arrival(delivery, page, int(clock()))
        except (ApiRefused, ApiRejected) as error:
            if delivery.lane is not Lane.TENANT or error.status not in _LANE_REFUSED:
                raise
            delivery.report.status, delivery.report.error = "refused", str(error)
        else:
            yield Arrival(delivery, None, begun)


async def archives(paths: Iterable[Path | None], delivery: Delivery, clock: Clock) -> Feed:
    """Read NDJSON archives one after the other; None is standard input."""
    begun = int(clock())
    for path in paths:
        pages = read_archive(path)
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            yield Arrival(delivery, page, int(clock()))
    yield Arrival(delivery, None, begun)


async def letters(chosen: Sequence[tuple[Delivery, bytes]], clock: Clock) -> Feed:
    """Read dead letters once more, each with a delivery of its own, so that it shows which became a row."""
    for delivery, raw in chosen:
        yield Arrival(delivery, Page((raw,)), int(clock()))


async def _fill(queue: asyncio.Queue[Arrival | None], feed: Feed) -> None:
    """Move arrivals onto the queue. What arrives is counted here, what is acknowledged in the writer."""
    async with aclosing(feed):
        async for arrival in feed:
            if arrival.page is not None:
                arrival.delivery.report.pages += 1
                arrival.delivery.report.received += len(arrival.page.events)
            await queue.put(arrival)


async def _load(queue: asyncio.Queue[Arrival | None], enricher: Enricher, writer: Writer) -> None:
    while True:
        try:
            async with asyncio.timeout_at(writer.due):
                arrival = await queue.get()
        except TimeoutError:
            await writer.flush()
            continue
        if arrival is None:
            await writer.flush()
            return
        if arrival.page is None:
            await writer.drained(arrival.delivery, arrival.at)
            continue
        rows, dead_letters = _normalize(arrival, arrival.page)
        await enricher.refresh()
        enricher.enrich(rows)
        report = arrival.delivery.report
        report.newest = max([report.newest, *(row.eventTime for row in rows)])
        await writer.add(arrival.delivery, rows, dead_letters)


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


async def raise_when(stop: asyncio.Event) -> None:
    """Wait for `stop`, then raise Interrupted."""
    await stop.wait()
    raise Interrupted("stopped before the end", hint="What was acknowledged is kept; run it again for the rest.")


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
