"""Which windows to read: pure interval arithmetic over the coverage ledger. Times are Unix seconds, UTC.

A run reads three things of each lane, and the ledger says what is left of each:

- **gaps**: everything since the first covered moment, or `lookback` before now, that no window covers yet;
- **overlap**: the last `overlap` before the newest covered moment, again, for events that became visible late;
- **resweep**: the last whole UTC days, once a day. A window drained since midnight counts as swept.

An event that becomes visible at most `overlap` after its effective_at is therefore read by the next run, and one that
becomes visible at most `resweep` minus one day after it by a later day's first run. Nothing later is promised.
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


def midnight(now: int) -> int:
    """The start of the UTC day that `now` is in."""
    return now - now % DAY


def plan_run(covered: Sequence[Window], swept_today: Sequence[Window], now: int, schedule: Schedule) -> list[Window]:
    """What one run reads of a lane, newest first.

    `covered` is all the ledger has for the lane; `swept_today` is what it got since `midnight(now)`. Both may be in any
    order and overlap. A clock that stepped back behind the newest covered moment re-reads the overlap before `now`.
    """
    oldest = max(0, now - schedule.lookback)
    wanted = []
    if covered:
        oldest = min(oldest, *(window.start for window in covered))
        newest = min(now, max(window.end for window in covered))
        wanted.append(Window(max(oldest, newest - schedule.overlap), now))
        today = midnight(now)
        resweep = max(oldest, today - schedule.resweep)
        if resweep < today:
            wanted += subtract(Window(resweep, today), swept_today)
    if oldest < now:
        wanted += subtract(Window(oldest, now), covered)
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
