"""The flow between the stages: order of acknowledgement, batch age, failures and stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

import shipper.pipeline
from shipper.config import Settings
from shipper.enrich import open_enricher
from shipper.errors import AccountingError, ApiRefused, ApiUnavailable, DatabaseUnavailable, InputError, Interrupted
from shipper.load import schema
from shipper.load.batches import Delivery
from shipper.load.clickhouse import Database, connect
from shipper.load.ledger import Ledger
from shipper.load.tables import LOGS
from shipper.load.writer import Writer
from shipper.model import Lane, Page, RunID, Source, SourceID, Window, WorkspaceID
from shipper.pipeline import Arrival, archives, ship
from shipper.telemetry import LaneReport
from tests.conftest import database_settings
from tests.organizations import NOW

SOURCE = Source(WorkspaceID("w"), SourceID("s"))


def new_delivery() -> Delivery:
    return Delivery(SOURCE, Lane.ORGANIZATION, Window(NOW - 100, NOW), LaneReport(SOURCE, Lane.ORGANIZATION))


def page(*numbers: int) -> Page:
    return Page(tuple(b'{"id":"e%d","type":"user.added","effective_at":%d}' % (n, NOW - 50) for n in numbers))


def new_writer(database: Database, *, age: float = 1000) -> Writer:
    clock = asyncio.get_running_loop().time
    return Writer(database, Ledger(database, SOURCE), RunID("r"), rows=1000, bytes=10**6, age=age, clock=clock)


class Watched:
    """A database that tells when the table got rows, or fails when it should."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.landed = asyncio.Event()
        self.failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def insert(self, table: str, *values: Any, **named: Any) -> None:
        if self.failure is not None:
            raise self.failure
        await self._database.insert(table, *values, **named)
        self.landed.set()


async def rows(database: Database) -> list[str]:
    return [event_id for (event_id,) in await database.query("SELECT eventID FROM openai_audit_logs ORDER BY 1")]


async def covered(database: Database) -> list[Window]:
    return await Ledger(database, SOURCE).covered(Lane.ORGANIZATION)


async def test_rows_are_written_while_the_next_page_is_still_awaited(database: Database) -> None:
    """A batch that is old enough is flushed although the feed has not ended: the feed here ends only after that."""
    watched: Any = Watched(database)
    delivery = new_delivery()

    async def feed() -> AsyncGenerator[Arrival]:
        yield Arrival(delivery, page(1), NOW)
        await watched.landed.wait()
        assert await covered(database) == []
        yield Arrival(delivery, page(2), NOW)
        yield Arrival(delivery, None, NOW)

    async with asyncio.timeout(30):
        await ship([feed()], open_enricher(Settings()), new_writer(watched, age=0), asyncio.Event())
    assert await rows(database) == ["e1", "e2"]
    assert await covered(database) == [Window(NOW - 100, NOW)]


async def test_a_feed_that_fails_leaves_its_rows_but_claims_nothing(database: Database) -> None:
    """What was received before the failure is in the table; the window is not in the ledger."""
    delivery = new_delivery()

    async def feed() -> AsyncGenerator[Arrival]:
        yield Arrival(delivery, page(1, 2), NOW)
        while delivery.owed == 0:  # noqa: ASYNC110 - the writer tells nobody when it takes rows
            await asyncio.sleep(0)
        raise ApiUnavailable("gone") from ConnectionResetError("the cause")

    with pytest.raises(ApiUnavailable, match="gone") as caught:
        await ship([feed()], open_enricher(Settings()), new_writer(database), asyncio.Event())
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert await covered(database) == []
    assert await rows(database) == ["e1", "e2"]


async def test_after_a_failure_a_timeout_outside_still_knows_itself() -> None:
    """The lease ends while the last rows are written after a failure: that is a timeout to whoever set it. As a bare
    cancellation nobody asked for, it would end the run as if all had been read.
    """
    delivery, landing = new_delivery(), asyncio.Event()

    class Hangs:
        due = None

        async def flush(self) -> None:
            landing.set()
            await asyncio.Event().wait()

    async def feed() -> AsyncGenerator[Arrival]:
        await asyncio.sleep(0)
        if not landing.is_set():
            raise ApiUnavailable("gone")
        yield Arrival(delivery, None, NOW)

    async def leased() -> None:
        async with asyncio.timeout(3600) as fence:
            ending = asyncio.create_task(_expire(fence, landing))
            writer: Any = Hangs()
            await ship([feed()], open_enricher(Settings()), writer, asyncio.Event())
            await ending

    with pytest.raises(TimeoutError):
        await leased()


async def _expire(fence: asyncio.Timeout, when: asyncio.Event) -> None:
    await when.wait()
    fence.reschedule(0)


async def test_feeds_wait_for_the_loader_by_bytes(monkeypatch: pytest.MonkeyPatch, embedded_url: str) -> None:
    """With a table that hangs, no more pages are taken than the belt holds; one that is larger than it still passes."""
    monkeypatch.setattr(shipper.pipeline, "_BELT_BYTES", 1000)
    database = await connect(database_settings(embedded_url))
    await schema.apply(database)
    hanging = asyncio.Event()
    taken = 0
    delivery = new_delivery()
    large = b'{"id":"large","type":"user.added","effective_at":%d,"pad":"%s"}' % (NOW - 50, b"x" * 3000)

    class Hanging(Watched):
        async def present(self, *values: Any, **named: Any) -> set[str]:
            await hanging.wait()
            found: set[str] = await self._database.present(*values, **named)
            return found

    async def feed() -> AsyncGenerator[Arrival]:
        nonlocal taken
        yield Arrival(delivery, Page((large,)), NOW)
        for number in range(100):
            taken += 1
            yield Arrival(delivery, page(number), NOW)
        yield Arrival(delivery, None, NOW)

    clock = asyncio.get_running_loop().time
    slow: Any = Hanging(database)
    writer = Writer(slow, Ledger(slow, SOURCE), RunID("r"), rows=1, bytes=10**6, age=1000, clock=clock)
    shipping = asyncio.create_task(ship([feed()], open_enricher(Settings()), writer, asyncio.Event()))
    before = -1
    while taken != before:
        before = taken
        for _ in range(50):
            await asyncio.sleep(0)
    assert 5 < taken < 30
    hanging.set()
    await shipping
    assert len(await rows(database)) == 101
    await database.close()


async def test_two_inserts_are_under_way_while_the_next_batch_is_prepared(server_url: str) -> None:
    """Each waits for the other here, so that one at a time would never end."""
    database = await connect(database_settings(server_url))
    await schema.apply(database)
    both = asyncio.Barrier(2)

    class Paired(Watched):
        async def insert(self, table: str, *values: Any, **named: Any) -> None:
            if table == LOGS.name:
                await both.wait()
            await super().insert(table, *values, **named)

    delivery = new_delivery()

    async def feed() -> AsyncGenerator[Arrival]:
        for number in range(4):
            yield Arrival(delivery, page(number), NOW)
        yield Arrival(delivery, None, NOW)

    paired: Any = Paired(database)
    clock = asyncio.get_running_loop().time
    writer = Writer(paired, Ledger(paired, SOURCE), RunID("r"), rows=1, bytes=10**6, age=1000, clock=clock)
    async with asyncio.timeout(60):
        await ship([feed()], open_enricher(Settings()), writer, asyncio.Event())
    assert await rows(database) == ["e0", "e1", "e2", "e3"]
    assert await covered(database) == [Window(NOW - 100, NOW)]
    await database.close()


async def test_an_event_that_went_missing_is_graver_than_the_stop_that_shows_it(database: Database) -> None:
    """The last flush finds that fewer events were acknowledged than arrived: that is what is raised."""
    delivery = new_delivery()
    stop = asyncio.Event()

    async def feed() -> AsyncGenerator[Arrival]:
        yield Arrival(delivery, page(1, 2), NOW)
        delivery.arrived += 1
        yield Arrival(delivery, None, NOW)
        while delivery.drained_at is None:  # noqa: ASYNC110 - the writer tells nobody when a delivery is drained
            await asyncio.sleep(0)
        stop.set()
        await asyncio.Event().wait()

    with pytest.raises(AccountingError):
        await ship([feed()], open_enricher(Settings()), new_writer(database), stop)
    assert await covered(database) == []


async def test_a_stop_ends_a_feed_that_waits_and_keeps_what_came(database: Database) -> None:
    """Interrupted is raised although the feed never ends; drained windows are in the ledger, others are not."""
    done, open_ended = new_delivery(), new_delivery()
    open_ended.window = Window(NOW, NOW + 10)
    stop = asyncio.Event()

    async def feed() -> AsyncGenerator[Arrival]:
        yield Arrival(done, page(1), NOW)
        yield Arrival(done, None, NOW)
        yield Arrival(open_ended, page(2), NOW)
        while open_ended.owed == 0:  # noqa: ASYNC110 - the writer tells nobody when it takes rows
            await asyncio.sleep(0)
        stop.set()
        await asyncio.Event().wait()

    with pytest.raises(Interrupted) as caught:
        await ship([feed()], open_enricher(Settings()), new_writer(database), stop)
    assert "run it again" in caught.value.hint
    assert await rows(database) == ["e1", "e2"]
    assert await covered(database) == [Window(NOW - 100, NOW)]
    assert (done.report.received, done.report.inserted) == (1, 1)


async def test_a_table_that_is_gone_claims_nothing(database: Database) -> None:
    """The writer's error is what is raised; counters and ledger stay as they were."""
    watched: Any = Watched(database)
    watched.failure = DatabaseUnavailable("gone")
    delivery = new_delivery()

    async def feed() -> AsyncGenerator[Arrival]:
        yield Arrival(delivery, page(1), NOW)
        yield Arrival(delivery, None, NOW)

    with pytest.raises(DatabaseUnavailable):
        await ship([feed()], open_enricher(Settings()), new_writer(watched), asyncio.Event())
    assert (delivery.report.received, delivery.report.accounted) == (1, 0)
    assert await rows(database) == []
    assert await covered(database) == []


async def test_of_errors_that_come_together_the_gravest_is_raised(database: Database) -> None:
    """A refused key is said, not the outage that came with it."""
    both = asyncio.Barrier(2)

    async def fails(error: Exception) -> AsyncGenerator[Arrival]:
        yield Arrival(new_delivery(), page(), NOW)
        await both.wait()
        raise error

    feeds = [fails(ApiUnavailable("slow")), fails(ApiRefused("no", status=401))]
    with pytest.raises(ApiRefused):
        await ship(feeds, open_enricher(Settings()), new_writer(database), asyncio.Event())


async def test_an_archive_that_ends_too_early_ships_what_it_holds(database: Database, tmp_path: Path) -> None:
    """The second file is missing: the first is in the table, and the error says which file."""
    first = tmp_path / "first.ndjson"
    first.write_bytes(b"\n".join(page(1, 2).events))
    delivery = Delivery(SOURCE, Lane.ARCHIVE, None, LaneReport(SOURCE, Lane.ARCHIVE))
    feed = archives([first, tmp_path / "missing.ndjson"], delivery, lambda: NOW)
    with pytest.raises(InputError, match=r"missing\.ndjson"):
        await ship([feed], open_enricher(Settings()), new_writer(database), asyncio.Event())
    assert await rows(database) == ["e1", "e2"]
    assert delivery.report.balanced
