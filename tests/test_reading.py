"""Several feeds share what is left to read: none leaves while there may be more, and none waits for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import shipper.pipeline
from shipper.errors import ApiRejected
from shipper.fetch.sizing import Sizes, Work
from shipper.fetch.windows import merge
from shipper.model import Lane, Page, Source, SourceID, Window, WorkspaceID
from shipper.pipeline import Arrival, Reading, windows
from shipper.telemetry import LaneReport

SOURCE = Source(WorkspaceID("w"), SourceID("s"))
WHOLE = Window(1000, 2000)
FEEDS = 4


def page(window: Window, *, has_more: bool = False) -> Page:
    """One event, at the newest end of the window."""
    event = b'{"id":"e%d","type":"user.added","effective_at":%d}' % (window.end, window.end - 1)
    return Page((event,), has_more, "cursor")


def new_reading(*planned: tuple[Lane, Window]) -> Reading:
    lanes = {lane for lane, _ in planned}
    clients: Any = dict.fromkeys(lanes)
    reports = {lane: LaneReport(SOURCE, lane) for lane in lanes}
    return Reading(SOURCE, clients, reports, Work(planned, FEEDS, Sizes(smallest=1, largest=4, excess=1)))


async def everything(reading: Reading) -> list[list[Arrival]]:
    """What each feed gave, in its order."""

    async def all_of(feed: shipper.pipeline.Feed) -> list[Arrival]:
        return [arrival async for arrival in feed]

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        feeds = [group.create_task(all_of(windows(reading, lambda: 7))) for _ in range(FEEDS)]
    return [feed.result() for feed in feeds]


def ended(feeds: list[list[Arrival]]) -> list[Window]:
    """The windows that were read to their end."""
    return [arrival.delivery.window or WHOLE for feed in feeds for arrival in feed if arrival.page is None]


async def test_feeds_wait_for_a_window_that_may_be_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One planned window, too full: four feeds drain its pieces at the same time, though three found no work at first.

    The given-up page arrives, and its delivery does not end.
    """
    together = asyncio.Barrier(FEEDS)
    first = 0

    async def drain(_: object, __: Lane, window: Window) -> AsyncIterator[Page]:
        nonlocal first
        await asyncio.sleep(0)
        if window == WHOLE:
            yield page(window, has_more=True)
            raise AssertionError("a window that was given up is read on")
        first += 1
        if first <= FEEDS:
            await together.wait()
        yield page(window)

    monkeypatch.setattr(shipper.pipeline, "drain", drain)
    reading = new_reading((Lane.ORGANIZATION, WHOLE))
    feeds = await everything(reading)
    drained = ended(feeds)
    assert merge(drained) == [WHOLE]
    assert WHOLE not in drained
    assert sum(window.seconds for window in drained) == WHOLE.seconds
    pages = [arrival.delivery.window for feed in feeds for arrival in feed if arrival.page is not None]
    assert pages.count(WHOLE) == 1
    assert len(pages) == len(drained) + 1
    assert reading.reports[Lane.ORGANIZATION].windows == len(drained)


async def test_feeds_end_when_the_last_window_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty page, or none at all: every feed ends, and the window was read."""
    for pages in ([], [Page(())], [Page((), has_more=True), Page(())]):

        async def drain(*_: object, given: list[Page] = pages) -> AsyncIterator[Page]:
            for one in given:
                await asyncio.sleep(0)
                yield one

        monkeypatch.setattr(shipper.pipeline, "drain", drain)
        assert ended(await everything(new_reading((Lane.ORGANIZATION, WHOLE)))) == [WHOLE]


async def test_a_refused_lane_is_left_out_while_others_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tenant lane is asked as long as nothing is known, and then no more; the other lane is read whole."""
    asked: list[Window] = []

    async def drain(_: object, lane: Lane, window: Window) -> AsyncIterator[Page]:
        await asyncio.sleep(0)
        if lane is Lane.TENANT:
            asked.append(window)
            raise ApiRejected("no", status=403)
        yield page(window)

    monkeypatch.setattr(shipper.pipeline, "drain", drain)
    days = [Window(start, start + 10) for start in range(0, 200, 10)]
    reading = new_reading((Lane.ORGANIZATION, WHOLE), *((Lane.TENANT, day) for day in days))
    assert ended(await everything(reading)) == [WHOLE]
    assert reading.reports[Lane.TENANT].status == "refused"
    assert 0 < len(asked) <= FEEDS
    assert asked == days[: -len(asked) - 1 : -1]
