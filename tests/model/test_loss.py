"""No interleaving of runs, faults and crashes loses an event; bugs that are put in on purpose are found."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec import structs

from shipper import pipeline
from shipper.errors import DatabaseUnavailable
from shipper.fetch import windows
from shipper.fetch.paging import Pager
from shipper.fetch.windows import Coverage, Schedule
from shipper.load.batches import Batch, Delivery, Written
from shipper.load.lease import Lease
from shipper.load.rowbinary import Unwritable
from shipper.load.rows import Encoder
from shipper.load.writer import Writer, _coverage
from shipper.model import Page, Row, Window
from shipper.pipeline import Arrival, Clock, Feed, Reading
from tests.model import process
from tests.model.api import UNWRITABLE
from tests.model.machine import Shipping
from tests.model.oracle import HOUR, MINUTE, Loss
from tests.model.process import Client, lease, next_id, work

# A search, as in tests/conftest.py.
pytestmark = pytest.mark.no_cover

# The first step makes the organization and the settings.
_EVERY = settings(
    stateful_step_count=1 + 30, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True
)
_PROFILES = {
    "ci": settings(_EVERY, max_examples=500, derandomize=True),
    "long": settings(_EVERY, max_examples=20_000, stateful_step_count=1 + 60),
}
# Always the same search, and none for the shortest way to what was found. Each plant is found within 500 examples; the
# rest is for the day when another rule turns the search another way.
_PLANTED = settings(_EVERY, max_examples=2000, phases=[Phase.generate])
_SEED = 7


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs talk to the model's API, take its lease, and log nothing."""
    monkeypatch.setattr("shipper.run.AdminClient", Client)
    monkeypatch.setattr("shipper.run.Lease", lease)
    monkeypatch.setattr("shipper.run.Work", work)
    monkeypatch.setattr("shipper.load.lease.uuid4", next_id)
    monkeypatch.setattr("shipper.load.writer.Encoder", _Picky)
    structlog.configure(processors=[_drop])
    yield
    structlog.reset_defaults()


class _Picky(Encoder):
    """Has rows that it cannot write, as no real event is."""

    def encode(self, row: Row) -> tuple[bytes, ...]:
        if row.kind.name == UNWRITABLE:
            raise Unwritable(row.event_id)
        return super().encode(row)


def _drop(*_: object) -> str:
    raise structlog.DropEvent


def test_nothing_is_lost_doubled_invented_or_claimed() -> None:
    """Whatever the order of events, faults, crashes, stops and clocks. HYPOTHESIS_PROFILE=long looks longer."""
    run_state_machine_as_test(Shipping, settings=_PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "ci")])


def found(machine: type[Shipping] = Shipping) -> str:
    """What the search says of a planted bug. Fails when it finds nothing."""
    with pytest.raises(Loss) as caught:
        run_state_machine_as_test(seed(_SEED)(machine), settings=_PLANTED)
    return str(caught.value)


def test_finds_an_overlap_shorter_than_events_are_late() -> None:
    class ShortOverlap(Shipping):
        overlap = 10 * MINUTE

    assert found(ShortOverlap).startswith("lost:")


def test_finds_a_commit_before_the_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger first, the rows after it: a crash or a failure between the two."""

    class Hasty(Writer):
        async def write(self, batch: Batch) -> None:
            claimed = [delivery for delivery in self._drained if delivery.window is not None]
            await self._ledger.commit([_coverage(delivery, self._run_id) for delivery in claimed])
            for delivery in claimed:
                delivery.report.windows_done += 1
            self._drained = []
            await super().write(batch)

    monkeypatch.setattr("shipper.run.Writer", Hasty)
    assert found().startswith("the ledger claims")


def test_finds_windows_that_leave_out_their_first_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """`effective_at[gt]` where `[gte]` belongs."""
    monkeypatch.setattr(Client, "first_second", "effective_at[gt]")
    assert found().startswith("the ledger claims")


def test_finds_a_cursor_that_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first page of a window is read."""
    receive = Pager.receive

    def receive_one(self: Pager, page: Page) -> None:
        receive(self, page)
        self.done = True

    monkeypatch.setattr(Pager, "receive", receive_one)
    assert found().startswith("the ledger claims a window that was not read to its end")


def test_finds_a_window_that_is_given_up_and_committed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """One page of it was read. That its parts are read afterwards is no excuse: they may not be."""

    async def every_window_ends(reading: Reading, clock: Clock) -> Feed:
        before: Arrival | None = None
        async with aclosing(pipeline.windows(reading, clock)) as arrivals:
            async for arrival in arrivals:
                if before is not None and before.page is not None and before.delivery is not arrival.delivery:
                    yield Arrival(before.delivery, None, before.at)
                yield arrival
                before = arrival

    monkeypatch.setattr("shipper.run.windows", every_window_ends)
    assert found().startswith("the ledger claims a window that was not read to its end")


def plan_without_settled(coverage: Coverage, now: int, schedule: Schedule) -> list[Window]:
    """The re-sweep re-reads the last days before now, whenever the days before those were read."""
    return windows.plan_run(replace(coverage, settled=[Window(0, max(0, now - schedule.resweep))]), now, schedule)


def test_finds_a_resweep_that_an_outage_shortens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipper.run.plan_run", plan_without_settled)
    assert found().startswith("lost:")


def plan_by_newest(coverage: Coverage, now: int, schedule: Schedule) -> list[Window]:
    """The overlap is the last stretch before the newest covered moment, and nothing else is read again."""
    return windows.plan_run(replace(coverage, overlapped=coverage.drained), now, schedule)


def test_finds_an_overlap_that_newer_coverage_moves_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ended after its newest window, or a backfill of the last hour. This one was no plant: it was here."""
    monkeypatch.setattr("shipper.run.plan_run", plan_by_newest)
    assert found().startswith("lost:")


def test_finds_a_read_that_is_dated_by_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What became visible while it was paging would count as read."""
    drained = Writer.drained

    def drained_now(self: Writer, delivery: Delivery, drained_at: int) -> None:
        # As late as can be: nothing that the clock says until the commit is later.
        drained(self, delivery, drained_at + HOUR)

    monkeypatch.setattr(Writer, "drained", drained_now)
    assert found().startswith("the ledger says that the read began later than it did")


def test_finds_rows_that_are_not_looked_for_before_the_insert(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every overlap would double its rows until ClickHouse merges them."""

    async def nothing(*_: object) -> set[str]:
        return set()

    monkeypatch.setattr(Writer, "_present", nothing)
    assert found().startswith("doubled")


def test_finds_rows_that_count_although_the_insert_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed write is logged, and the ledger gets the window all the same."""
    insert = Writer._insert

    async def forgiving(self: Writer, rows: Sequence[Written], name: str) -> None:
        with suppress(DatabaseUnavailable):
            await insert(self, rows, name)

    monkeypatch.setattr(Writer, "_insert", forgiving)
    assert found().startswith("the ledger claims")


def test_finds_a_token_that_is_another_one_at_each_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """An insert whose answer was lost is in the table; its repetition would be another insert."""
    insert = process._Gated.insert
    numbers = count()

    async def renamed(self: process._Gated, *values: Any, token: str) -> None:
        await insert(self, *values, token=f"{token}/{next(numbers)}")

    monkeypatch.setattr(process._Gated, "insert", renamed)
    assert found().startswith("doubled")


def test_finds_a_lease_that_nobody_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs at once look for the same rows before either has inserted them."""

    async def take(self: Lease, _: object) -> None:
        await self._bid()

    monkeypatch.setattr(Lease, "_acquire", take)
    assert found().startswith("doubled")


def test_finds_bytes_that_were_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """White space is part of what was received."""
    encode = Encoder.encode

    def tidy(self: Encoder, row: Row) -> tuple[bytes, ...]:
        return encode(self, structs.replace(row, raw=row.raw.replace(b"  ", b" ")))

    monkeypatch.setattr(Encoder, "encode", tidy)
    assert found().startswith("other bytes than received")
