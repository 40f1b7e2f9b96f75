"""How work is cut: every moment is read by exactly one piece, newest first, in few requests and without a long tail."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipper.fetch.sizing import Piece, Sizes, Work
from shipper.fetch.windows import DAY, cut, merge, subtract
from shipper.model import Lane, Window

ORG, TENANT = Lane.ORGANIZATION, Lane.TENANT
Times = Mapping[Lane, Sequence[int]]
# Planned windows as they are, whatever is found.
AS_PLANNED = Sizes(smallest=1e9, largest=1e9)
TINY = Sizes(smallest=1, largest=2, shares=1, excess=1)


@dataclass(slots=True)
class Read:
    """What feeds did that all wait equally long for a page: in each round every one of them gets one."""

    requests: int = 0
    rounds: int = 0
    taken: list[Piece] = field(default_factory=list)
    given_up: list[Piece] = field(default_factory=list)

    def windows(self, lane: Lane) -> list[Window]:
        """Those that were drained, in the order in which they were taken."""
        return [piece.window for piece in self.taken if piece.lane is lane and piece not in self.given_up]


def read(times: Times, work: Work, feeds: int, page: int = 100) -> Read:
    """Read it all from an API that answers newest first; `times` are the events of each lane, sorted."""
    done = Read()
    busy: list[tuple[Piece, int, int]] = []
    while True:
        while work.waiting and len(busy) < feeds:
            piece = work.take()
            found = times.get(piece.lane, ())
            busy.append((piece, bisect_left(found, piece.window.start), bisect_left(found, piece.window.end)))
            done.taken.append(piece)
        if not busy:
            assert work.ended
            return done
        done.rounds += 1
        still = []
        for piece, low, high in busy:
            done.requests += 1
            found = times.get(piece.lane, ())
            whole = bisect_left(found, piece.window.end) - low
            last = max(low, high - page)
            events = found[last:high]
            if low + whole == high and work.first_page(
                piece, (events[-1], events[0]) if events else (), len(events), has_more=last > low
            ):
                done.given_up.append(piece)
            elif last > low:
                still.append((piece, low, last))
            else:
                work.drained(piece, whole)
        busy = still


def evenly(count: int, window: Window) -> list[int]:
    return [window.start + window.seconds * number // count for number in range(count)]


def days(count: int) -> list[Window]:
    return cut([Window(0, count * DAY)], DAY)


_LENGTHS = st.sampled_from([1, 2, 3, 10, 3600, DAY])
_EVENTS = st.lists(st.tuples(st.integers(0, 5 * DAY), st.sampled_from([1, 5, 300])), max_size=6)


@given(
    lengths=st.lists(st.tuples(_LENGTHS, st.booleans(), st.booleans()), min_size=1, max_size=8),
    bursts=_EVENTS,
    sizes=st.sampled_from([Sizes(), TINY, Sizes(smallest=1.5, largest=4)]),
    feeds=st.integers(1, 5),
    page=st.sampled_from([1, 3, 100]),
)
@settings(max_examples=200, deadline=None)
def test_the_pieces_are_the_planned_time_cut_once(
    lengths: list[tuple[int, bool, bool]], bursts: list[tuple[int, int]], sizes: Sizes, feeds: int, page: int
) -> None:
    """Whatever is found: each moment is in one drained piece, none is empty, and the count of windows is theirs."""
    planned, at = [], 0
    for length, tenant, gap in lengths:
        planned.append((TENANT if tenant else ORG, Window(at, at + length)))
        at += length + gap
    every = sorted(second for start, count in bursts for second in [start] * count)
    work = Work(planned, feeds, sizes)
    assert work.windows == {lane: sum(one is lane for one, _ in planned) for lane in Lane}
    done = read({ORG: every, TENANT: every}, work, feeds, page)
    for lane in (ORG, TENANT):
        pieces = done.windows(lane)
        assert all(window.seconds for window in pieces)
        assert sum(window.seconds for window in pieces) == sum(window.seconds for one, window in planned if one is lane)
        assert merge(pieces) == merge(window for one, window in planned if one is lane)
        assert work.windows[lane] == len(pieces)


@given(
    bursts=_EVENTS, sizes=st.sampled_from([Sizes(), TINY]), feeds=st.integers(1, 5), page=st.sampled_from([1, 3, 100])
)
@settings(max_examples=100, deadline=None)
def test_what_is_newest_is_taken_first(bursts: list[tuple[int, int]], sizes: Sizes, feeds: int, page: int) -> None:
    """Over both lanes. Only the time of a window that was given up comes back."""
    every = sorted(second for start, count in bursts for second in [start] * count)
    work = Work([(lane, window) for lane in (ORG, TENANT) for window in days(5)], feeds, sizes)
    done = read({ORG: every, TENANT: every[::2]}, work, feeds, page)
    newest: list[int] = []
    for piece in done.taken:
        came_back = any(
            one.lane is piece.lane and not subtract(piece.window, [one.window]) and one is not piece
            for one in done.given_up
        )
        if not came_back:
            newest.append(piece.window.end)
    assert newest == sorted(newest, reverse=True)


@pytest.mark.parametrize("events", [0, 700, 3000])
def test_what_fits_in_few_pages_is_read_as_planned(events: int) -> None:
    """Thirty days with a page a day or less: not one request more than the windows need."""
    times = {ORG: evenly(events, Window(0, 30 * DAY)) if events else []}
    done = read(times, Work([(ORG, window) for window in days(30)], 4), 4)
    assert done.windows(ORG) == days(30)
    assert done.requests == 30


def test_a_day_that_is_too_full_is_shared_by_all_feeds() -> None:
    """500 pages in one planned window: one is given up, after one page, and 16 feeds need about a sixteenth."""
    times = {ORG: evenly(50_000, Window(0, DAY))}
    plain = read(times, Work([(ORG, Window(0, DAY))], 16, AS_PLANNED), 16)
    assert (plain.requests, plain.rounds) == (500, 500)
    done = read(times, Work([(ORG, Window(0, DAY))], 16), 16)
    assert [piece.window for piece in done.given_up] == [Window(0, DAY)]
    assert done.requests <= 560
    assert done.rounds <= 40


def test_no_piece_is_much_larger_than_the_largest() -> None:
    """Four feeds at 3,000 pages a day: what a crash repeats is bounded."""
    times = {ORG: evenly(900_000, Window(0, 3 * DAY))}
    done = read(times, Work([(ORG, window) for window in days(3)], 4), 4)
    largest = max(window.seconds for window in done.windows(ORG))
    assert largest * 900_000 / (3 * DAY) / 100 <= 60
    assert done.requests <= 9000 * 1.05


def test_small_pieces_come_last() -> None:
    """Even days that hold more than one fair share each: the rounds are close to the least there can be."""
    times = {ORG: evenly(20_000, Window(0, 10 * DAY))}
    plain = read(times, Work([(ORG, window) for window in days(10)], 8, AS_PLANNED), 8)
    done = read(times, Work([(ORG, window) for window in days(10)], 8), 8)
    assert (plain.requests, plain.rounds) == (200, 40)
    assert done.requests <= 225
    assert done.rounds <= 32


def test_a_burst_costs_a_bounded_number_of_requests() -> None:
    """A thousand events in the newest second look like a day of millions. Few pieces later that is known better."""
    times = {ORG: [*evenly(200, Window(0, DAY)), *[DAY - 1] * 1000]}
    for feeds in (1, 4, 16):
        plain = read(times, Work([(ORG, Window(0, DAY))], feeds, AS_PLANNED), feeds)
        done = read(times, Work([(ORG, Window(0, DAY))], feeds), feeds)
        assert done.requests <= plain.requests + 8 + 3 * feeds


_PROFILES = st.lists(st.sampled_from([0, 0, 3, 50, 100, 700, 3000, 12_000]), min_size=1, max_size=12)


@given(counts=_PROFILES, tenant=_PROFILES, feeds=st.sampled_from([1, 2, 4, 16]))
@settings(max_examples=150, deadline=None)
def test_the_requests_grow_by_a_quarter_at_most(counts: list[int], tenant: list[int], feeds: int) -> None:
    """And by four for each feed; whatever the days hold. For that, the slowest feed is never later than it was."""
    times, planned = {}, []
    for lane, by_day in ((ORG, counts), (TENANT, tenant)):
        filled = zip(by_day, reversed(days(len(by_day))), strict=True)
        times[lane] = [second for count, day in filled for second in evenly(count, day)]
        planned += [(lane, window) for window in days(len(by_day))]
    plain = read(times, Work(planned, feeds, AS_PLANNED), feeds)
    done = read(times, Work(planned, feeds), feeds)
    assert done.requests <= plain.requests * 1.25 + 4 * feeds
    assert done.rounds <= plain.rounds * 1.25 + 4


def test_events_of_one_second_are_not_cut() -> None:
    """There is nothing to cut below a second: it is paged to its end."""
    times = {ORG: [7] * 10_000}
    done = read(times, Work([(ORG, Window(0, 60))], 2, TINY), 2)
    assert Window(7, 8) in done.windows(ORG)
    assert all(piece.window.seconds > 1 for piece in done.given_up)


def test_a_page_tells_what_it_covers_in_either_order() -> None:
    """Read from the newest or from the oldest end: the same guess. Moments outside of the window count as its edges."""
    for times in ((900, 999), (0, 99), (99, 0), (900, 5000)):
        work = Work([(ORG, Window(0, 1000))], 1, Sizes(excess=1, largest=9))
        piece = work.take()
        assert work.first_page(piece, times, 100, has_more=True)
        assert (piece.events, piece.seconds) == (100, 100)
        assert work.windows[ORG] == 2
    for times in ((0, 999), (400, 499)):
        work = Work([(ORG, Window(0, 1000))], 1, Sizes(excess=1, largest=9))
        assert not work.first_page(work.take(), times, 100, has_more=True)


def test_the_end_of_a_piece_takes_the_place_of_what_its_first_page_told() -> None:
    """A page in a tenth of it, and nothing in the rest: the older window is taken as one that holds a page."""
    work = Work([(ORG, Window(1000, 2000)), (ORG, Window(0, 1000))], 1, Sizes(smallest=1, largest=10, excess=100))
    piece = work.take()
    assert not work.first_page(piece, (1900, 1999), 50, has_more=True)
    work.drained(piece, 51)
    assert work.take().window == Window(0, 1000)


@pytest.mark.parametrize(("page", "pieces"), [(20, 5), (50, 2), (100, 1)])
def test_how_much_a_page_holds_shows(page: int, pieces: int) -> None:
    """An API that gives fewer events a page than it is asked for: the same events are more pages."""
    work = Work([(ORG, Window(1000, 2000)), (ORG, Window(0, 1000))], 1, Sizes(smallest=1, largest=1, excess=100))
    piece = work.take()
    work.first_page(piece, (1000, 1999), page, has_more=True)
    work.drained(piece, 100)
    assert work.take().window.seconds == 1000 // pieces


def test_a_page_without_moments_decides_nothing() -> None:
    """Events that do not say when they happened, and a page that is the last one anyway."""
    work = Work([(ORG, Window(0, 1000))], 1, TINY)
    assert not work.first_page(work.take(), (), 100, has_more=True)
    assert work.ended
    work = Work([(ORG, Window(0, 1000))], 1, TINY)
    assert not work.first_page(work.take(), (999, 999), 100, has_more=False)
    assert work.ended


def test_nothing_ends_while_a_window_may_still_be_given_up() -> None:
    """An empty page that promises more leaves it open, a page with events decides, the end of a window does too."""
    work = Work([(ORG, Window(0, 1000)), (TENANT, Window(0, 1000))], 2)
    organization, tenant = work.take(), work.take()
    assert (work.waiting, work.ended) == (False, False)
    assert not work.first_page(organization, (), 0, has_more=True)
    work.first_page(tenant, (0, 999), 3, has_more=False)
    assert not work.ended
    work.drained(organization, 0)
    assert work.ended


def test_a_lane_is_left_out() -> None:
    """What waits of it is dropped, and what was taken of it is not waited for."""
    work = Work([(lane, window) for lane in (ORG, TENANT) for window in days(3)], 2)
    assert {work.take().lane, work.take().lane} == {ORG, TENANT}
    work.leave_out(TENANT)
    left = [work.take(), work.take()]
    assert [piece.lane for piece in left] == [ORG, ORG]
    assert not work.waiting
