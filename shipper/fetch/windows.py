"""Which windows to read: pure interval arithmetic over the coverage ledger. Times are Unix seconds, UTC.

A run reads three things of each lane, and the ledger says what is left of each:

- **gaps**: everything since the first covered moment, or `lookback` before now, that no window covers yet;
- **overlap**: every moment that was not yet read at least `overlap` after it happened, for events that became visible
  late. Mostly that is the last `overlap` before the newest covered moment; more when a run ended between two windows,
  or a backfill covered what is newer;
- **resweep**: once a day, every earlier moment that was not yet read at least `resweep` after it happened.

So the next run reads an event that becomes visible at most `overlap` after its effective_at, and some later run reads
one that becomes visible at most `resweep` after it, however long the runs themselves were out. Nothing later is
promised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from shipper.config import Settings
from shipper.model import Window

DAY = 86_400


@dataclass(frozen=True, slots=True)
class Schedule:
    """How far to read, in seconds. `window` is the longest window drained at once."""

    lookback: int
    overlap: int
    resweep: int
    window: int

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(
            lookback=int(settings.lookback.total_seconds()),
            overlap=int(settings.overlap.total_seconds()),
            resweep=int(settings.resweep.total_seconds()),
            window=int(settings.window.total_seconds()),
        )


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the ledger knows of a lane, each in any order.

    `drained` was read to its end; `drained_today` since `midnight(now)`. `overlapped` and `settled` are the parts of
    `drained` that were read at least the overlap, and at least the resweep, after they happened: nothing is expected
    in `settled` any more.
    """

    drained: Sequence[Window] = ()
    drained_today: Sequence[Window] = ()
    overlapped: Sequence[Window] = ()
    settled: Sequence[Window] = ()


def midnight(now: int) -> int:
    """The start of the UTC day that `now` is in."""
    return now - now % DAY


def plan_run(coverage: Coverage, now: int, schedule: Schedule) -> list[Window]:
    """What one run reads of a lane, newest first.

    A clock that stepped back behind the newest covered moment re-reads the overlap before `now`.
    """
    oldest = max(0, now - schedule.lookback)
    wanted = []
    if covered := merge(coverage.drained):
        oldest = min(oldest, covered[0].start)
        newest = min(now, covered[-1].end)
        wanted.append(Window(max(oldest, newest - schedule.overlap), now))
        if schedule.resweep and oldest < midnight(now):
            wanted += subtract(Window(oldest, midnight(now)), [*coverage.settled, *coverage.drained_today])
    if oldest < now:
        # The gaps are among them: what was never read was not read late enough either.
        wanted += subtract(Window(oldest, now), coverage.overlapped)
    return cut(wanted, schedule.window)


def plan_backfill(wanted: Window, covered: Sequence[Window], window: int) -> list[Window]:
    """What a backfill of `wanted` still has to read, newest first, in windows of at most `window` seconds."""
    return cut(subtract(wanted, covered), window)


def merge(windows: Iterable[Window]) -> list[Window]:
    """The same moments as disjoint windows that do not touch, oldest first. Empty windows vanish."""
    merged: list[Window] = []
    for window in sorted(window for window in windows if window.seconds):
        if merged and window.start <= merged[-1].end:
            merged[-1] = Window(merged[-1].start, max(merged[-1].end, window.end))
        else:
            merged.append(window)
    return merged


def subtract(whole: Window, covered: Iterable[Window]) -> list[Window]:
    """The parts of `whole` that no window of `covered` covers, oldest first."""
    left = []
    start = whole.start
    for window in merge(covered):
        if window.end <= start:
            continue
        if window.start >= whole.end:
            break
        if window.start > start:
            left.append(Window(start, window.start))
        start = window.end
    if start < whole.end:
        left.append(Window(start, whole.end))
    return left


def cut(windows: Iterable[Window], size: int) -> list[Window]:
    """The same moments in windows of at most `size` seconds that end on multiples of it, newest first.

    The grid is fixed, so a run that starts again after a crash plans the same windows.
    """
    pieces = []
    for window in merge(windows):
        start = window.start
        while start < window.end:
            end = min(window.end, start - start % size + size)
            pieces.append(Window(start, end))
            start = end
    return pieces[::-1]
