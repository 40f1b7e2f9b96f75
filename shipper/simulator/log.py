"""The simulated audit log: both lanes sorted by time, and pages cut out of them without serialising anything again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import orjson

from shipper.model import Lane
from shipper.simulator.events import Event
from shipper.simulator.query import BadRequest, Query


@dataclass(frozen=True, slots=True)
class Page:
    """One answer, newest event first. `first_id` and `last_id` are None on an empty page."""

    events: tuple[Event, ...]
    has_more: bool

    @property
    def first_id(self) -> str | None:
        return self.events[0].id if self.events else None

    @property
    def last_id(self) -> str | None:
        return self.events[-1].id if self.events else None


class _Lane:
    """The events of one lane, oldest first; `keys` are their places in the order, at the same index."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.keys: list[tuple[int, str]] = []
        self.by_id: dict[str, Event] = {}

    def fill(self, events: Iterable[Event]) -> None:
        self.events = sorted(events, key=lambda event: event.key)
        self.keys = [event.key for event in self.events]
        self.by_id = {event.id: event for event in self.events}

    def add(self, event: Event) -> None:
        index = bisect_left(self.keys, event.key)
        self.keys.insert(index, event.key)
        self.events.insert(index, event)
        self.by_id[event.id] = event


class EventLog:
    """Every event there is, in two lanes that never mix. The order within a lane is by time, then by id."""

    def __init__(self, events: Iterable[Event]) -> None:
        events = tuple(events)
        self._lanes = {lane: _Lane() for lane in (Lane.ORGANIZATION, Lane.TENANT)}
        for name, lane in self._lanes.items():
            lane.fill(event for event in events if event.lane is name)

    def add(self, event: Event) -> None:
        """Raises ValueError for an id that is already there."""
        if any(event.id in lane.by_id for lane in self._lanes.values()):
            raise ValueError(f"there is an event {event.id} already")
        self._lanes[event.lane].add(event)

    def newest_first(self, lane: Lane) -> list[Event]:
        return self._lanes[lane].events[::-1]

    def find(self, lane: Lane, event_id: str) -> Event:
        """Raises KeyError for an id the lane does not have."""
        return self._lanes[lane].by_id[event_id]

    def page(self, query: Query, visible: Callable[[Event], bool] | None = None) -> Page | BadRequest:
        """The page the query asks for. `visible` hides events that are there but cannot be seen yet."""
        lane = self._lanes[query.lane]
        low = bisect_left(lane.keys, (query.since, ""))
        high = bisect_left(lane.keys, (query.until, ""))
        for name, cursor in (("after", query.after), ("before", query.before)):
            if cursor is None:
                continue
            if cursor not in lane.by_id:
                return BadRequest(f"Invalid '{name}': no audit log with id '{cursor}'.", name)
            key = lane.by_id[cursor].key
            if name == "after":
                high = min(high, bisect_left(lane.keys, key))
            else:
                low = max(low, bisect_right(lane.keys, key))
        upwards = query.before is not None and query.after is None
        indexes = range(low, high) if upwards else range(high - 1, low - 1, -1)
        chosen = list(islice(_select(lane.events, indexes, query, visible), query.limit + 1))
        page = chosen[: query.limit]
        return Page(tuple(reversed(page) if upwards else page), len(chosen) > query.limit)


def _select(
    events: list[Event], indexes: range, query: Query, visible: Callable[[Event], bool] | None
) -> Iterator[Event]:
    if not query.filtered and visible is None:
        return map(events.__getitem__, indexes)
    candidates: Iterator[Event] = map(events.__getitem__, indexes)
    if query.filtered:
        candidates = filter(query.matches, candidates)
    return filter(visible, candidates) if visible else candidates


def envelope(events: Iterable[Event], *, first_id: str | None, last_id: str | None, has_more: bool) -> bytes:
    """The documented envelope round the events' own bytes."""
    return b'{"object":"list","data":[%b],"first_id":%b,"last_id":%b,"has_more":%b}' % (
        b",".join([event.raw for event in events]),
        orjson.dumps(first_id),
        orjson.dumps(last_id),
        b"true" if has_more else b"false",
    )


def as_body(page: Page) -> bytes:
    return envelope(page.events, first_id=page.first_id, last_id=page.last_id, has_more=page.has_more)


def as_documents(page: Page, count: int) -> bytes:
    """The page as up to `count` envelopes on lines of their own, in order; the last one says how it goes on."""
    size = -(-len(page.events) // count) or 1
    parts = [page.events[start : start + size] for start in range(0, len(page.events), size)] or [()]
    return b"\n".join(
        as_body(Page(part, has_more=page.has_more or number < len(parts))) for number, part in enumerate(parts, 1)
    )
