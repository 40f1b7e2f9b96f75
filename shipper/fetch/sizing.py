"""How much time is asked for at once. Pure: no clock, no network.

Planned windows say nothing about how many events they hold. That shows while they are read, and what is left is cut by
it: into large pieces as long as much is left, into small ones towards the end, so that no feed pages on alone while the
others have nothing to do. A window whose first page says that it is too full is given up, and its time waits again in
two parts.

All of this guesses numbers of pages, and only decides what is asked for. What was read is another matter: a piece was
read when its own query was answered to its end, in whatever order the API gives events.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shipper.model import Lane, Window

# Events in a full page, as long as none was seen.
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Sizes:
    """In pages, none below one. A piece is what is left, divided by `shares` per feed, within `smallest` and `largest`.

    A window is given up when its first page promises more than `largest`, or more than `excess` pieces; never without
    `give_up`, where reading a page twice is not as good as once.
    """

    smallest: float = 3.0
    largest: float = 50.0
    shares: float = 2.0
    excess: float = 4.0
    give_up: bool = True


@dataclass(slots=True, eq=False)
class _Found:
    """Events in some of the seconds of a lane, or of one planned window."""

    events: int = 0
    seconds: int = 0

    def pages(self, seconds: int, page: int) -> float:
        """How many pages so many seconds hold at that rate; none as long as nothing is known."""
        return self.events / self.seconds * seconds / page if self.seconds else 0.0


@dataclass(slots=True, eq=False)
class Piece:
    """A window that may be asked for. `within` is what was found in the planned window that it is a part of, `events`
    in `seconds` what was found in the piece itself.
    """

    lane: Lane
    window: Window
    within: _Found
    events: int = 0
    seconds: int = 0


class Work:
    """What is left to read of one source: windows of its lanes, newest first over all of them.

    What waits and the pieces that were taken and not given up are always the planned windows, each moment once. A piece
    more costs one request more at most, and so does one that is given up.

    `windows` are how many there are of each lane: those that were taken and not given up, and those that wait.
    """

    def __init__(self, planned: Iterable[tuple[Lane, Window]], feeds: int, sizes: Sizes | None = None) -> None:
        self._sizes = sizes or Sizes()
        self._feeds = feeds
        self._fullest = 0
        self._waiting: list[Piece] = []
        self._undecided: set[Piece] = set()
        self._found = {lane: _Found() for lane in Lane}
        self._left = dict.fromkeys(Lane, 0)
        self.windows = dict.fromkeys(Lane, 0)
        for lane, window in planned:
            self._put(lane, window, _Found())

    @property
    def waiting(self) -> bool:
        """Whether there is something to take."""
        return bool(self._waiting)

    @property
    def ended(self) -> bool:
        """Whether there never will be: nothing waits, and no window that was taken may still be given up."""
        return not self._waiting and not self._undecided

    def take(self) -> Piece:
        """The newest window, or the newest part of it. Only while something is `waiting`."""
        piece = self._waiting.pop()
        self._left[piece.lane] -= piece.window.seconds
        pages = self._pages(piece)
        parts = round(pages / self._fair(pages))
        if parts > 1 and piece.window.seconds > 1:
            older, piece.window = _cut(piece.window, parts)
            self._put(piece.lane, older, piece.within)
        self._undecided.add(piece)
        return piece

    def first_page(self, piece: Piece, times: Sequence[int], events: int, *, has_more: bool) -> bool:
        """Learn from the first page that holds events. True when the piece is given up with it: read no more of it.

        `times` are moments of some of the page's `events`, best those of the first and the last.
        """
        if has_more and not events:
            return False
        self._undecided.discard(piece)
        window = piece.window
        if not has_more or not times:
            return False
        self._fullest = max(self._fullest, events)
        oldest, newest = (min(max(time, window.start), window.end - 1) for time in (min(times), max(times)))
        # What the page covers when it is read from one end, whichever that is.
        covered = max(1, min(window.end - oldest, newest + 1 - window.start))
        self._learn(piece, events, covered)
        pages = window.seconds / covered
        fair = self._fair(pages)
        if not self._sizes.give_up or pages <= min(self._sizes.largest, fair * self._sizes.excess):
            return False
        self.windows[piece.lane] -= 1
        for part in _cut(window, max(2, round(pages / fair))):
            self._put(piece.lane, part, piece.within)
        return True

    def drained(self, piece: Piece, events: int) -> None:
        """A piece was read to its end and held so many events."""
        self._undecided.discard(piece)
        self._learn(piece, events, piece.window.seconds)

    def leave_out(self, lane: Lane) -> None:
        """Nothing more of this lane is to be read."""
        self._waiting = [piece for piece in self._waiting if piece.lane is not lane]
        self._undecided = {piece for piece in self._undecided if piece.lane is not lane}
        self._left[lane] = 0

    @property
    def _page(self) -> int:
        return self._fullest or _PAGE

    def _put(self, lane: Lane, window: Window, within: _Found) -> None:
        insort(self._waiting, Piece(lane, window, within), key=_newest_last)
        self._left[lane] += window.seconds
        self.windows[lane] += 1

    def _learn(self, piece: Piece, events: int, seconds: int) -> None:
        for found in (piece.within, self._found[piece.lane]):
            found.events += events - piece.events
            found.seconds += seconds - piece.seconds
        piece.events, piece.seconds = events, seconds

    def _pages(self, piece: Piece) -> float:
        """How many pages to expect: by what was found near by, as soon as that is a page, else by the lane."""
        near = piece.within.events >= self._page
        found = piece.within if near else self._found[piece.lane]
        return found.pages(piece.window.seconds, self._page)

    def _fair(self, more: float) -> float:
        """How many pages to read at once, when there are `more` beside those that wait."""
        left = more + sum(self._found[lane].pages(seconds, self._page) for lane, seconds in self._left.items())
        return min(self._sizes.largest, max(self._sizes.smallest, left / (self._feeds * self._sizes.shares)))


def _newest_last(piece: Piece) -> tuple[int, int, Lane]:
    return piece.window.end, -piece.window.start, piece.lane


def _cut(window: Window, parts: int) -> tuple[Window, Window]:
    """All but the newest of so many equal parts, and the newest. The window has two seconds at least."""
    middle = window.end - max(1, window.seconds // parts)
    return Window(window.start, middle), Window(middle, window.end)
