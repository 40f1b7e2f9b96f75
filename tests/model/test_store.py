"""The model's store answers as the database does, wherever a run decides by the answer."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import pytest

from shipper.load import schema
from shipper.load.clickhouse import Database, connect
from shipper.load.ledger import Drained, Ledger
from shipper.load.writer import Writer
from shipper.model import Lane, RunID, Window
from tests.conftest import database_settings
from tests.load.rows import NOON, OTHER, SOURCE, batch_of, row
from tests.model.store import Store
from tests.model.time import Time
from tests.rowbinary import insert_rows

# 2026-12-01 00:00:00 UTC: the next partition.
DECEMBER = 1_796_083_200


class Modelled:
    """The store as a database that answers at once."""

    address = Store.address

    def __init__(self) -> None:
        self.store = Store(Time(NOON))

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self.store.query(sql, parameters)

    async def insert(self, table: str, columns: Sequence[str], body: Sequence[bytes], *, token: str) -> None:
        self.store.insert(table, columns, body, token)

    async def present(self, sql: str, parameters: Mapping[str, Any] | None, candidates: AbstractSet[str]) -> set[str]:
        return self.store.present(sql, parameters, candidates)


@pytest.fixture
async def both(embedded_url: str) -> AsyncIterator[list[Database]]:
    """The model's store and a real engine."""
    engine = await connect(database_settings(embedded_url))
    await schema.apply(engine)
    modelled: Any = Modelled()
    yield [modelled, engine]
    await engine.close()


async def test_the_ledger_gives_the_same_answer(both: list[Database]) -> None:
    """Of random windows, read at random times, for every question that a run asks, per lane and source."""
    rng = random.Random(5)

    def window() -> Window:
        start = NOON + rng.randrange(20_000)
        return Window(start, start + rng.choice([0, 1, 60, 900, 5000]))

    for source in (SOURCE, OTHER):
        rows = [
            Drained(lane, window(), 1, RunID("run"), NOON + rng.randrange(30_000))
            for lane in (Lane.ORGANIZATION, Lane.TENANT)
            for _ in range(25)
        ]
        for database in both:
            await Ledger(database, source).commit(rows)
    for source in (SOURCE, OTHER):
        for lane in Lane:
            for since, settled in ((0, None), (NOON + 9000, None), (0, 0), (0, 3600), (NOON + 9000, 3600), (0, 10**6)):
                modelled, real = [
                    await Ledger(database, source).covered(lane, drained_since=since, settled_after=settled)
                    for database in both
                ]
                assert modelled == real


async def test_the_search_for_rows_gives_the_same_answer(both: list[Database]) -> None:
    """In ranges of time, for one source, however often a row is there."""
    rng = random.Random(6)
    there = [row(number, time=NOON + rng.randrange(50_000)) for number in range(60)]
    there += [*there[:5], *(row(number, source=OTHER) for number in range(60, 70))]
    asked = [*there[:30], *(row(number, time=NOON + rng.randrange(50_000)) for number in range(55, 90))]
    answers = []
    for database in both:
        await insert_rows(database, there, token="token")
        writer = Writer(
            database, Ledger(database, SOURCE), RunID("run"), rows=9, bytes=10**6, age=1.0, clock=lambda: 0.0
        )
        answers.append(await writer._present(batch_of(asked)))
    assert answers[0] == answers[1] != set()


async def test_a_token_counts_for_each_partition(both: list[Database]) -> None:
    """An insert that was torn between two months and is sent again writes only what is missing; the same again nothing;
    the same token with other rows in a month that has it, nothing either."""
    november, december, third = row(1), row(2, time=DECEMBER), row(3)
    for database in both:
        await insert_rows(database, [november], token="token")
        await insert_rows(database, [november, december], token="token")
        await insert_rows(database, [november, december], token="token")
        await insert_rows(database, [third], token="token")
    modelled, real = both
    store: Any = modelled
    found = await real.query("SELECT eventID FROM openai_audit_logs ORDER BY eventID SETTINGS final = 0")
    assert [event_id for (event_id,) in found] == [november.event_id, december.event_id]
    assert sorted(record["eventID"] for record in store.store.rows) == [november.event_id, december.event_id]
