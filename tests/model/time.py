"""The time of the model: one true clock, the host's clock that strays from it, and a loop that waits for neither."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import Any


class Time:
    """`true` seconds only go forward. The shipper's host reads `true + skew`: behind below zero, ahead above."""

    def __init__(self, true: int) -> None:
        self.true = true
        self.skew = 0
        self.most_ahead = 0

    def host(self) -> float:
        return float(self.true + self.skew)

    def stray(self, skew: int) -> None:
        self.skew = skew
        self.most_ahead = max(self.most_ahead, skew)


class _NothingToWaitFor(selectors.BaseSelector):
    """A selector without files. A loop that would block has nothing left to do: it is told so instead."""

    def __init__(self) -> None:
        self.on_idle: Callable[[], None] = lambda: None
        self.next_timer: float | None = None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        raise KeyError(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self.next_timer = timeout
            self.on_idle()
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop on the true clock. `settle` runs what can run now; timers fire when the clock was moved."""

    def __init__(self, clock: Time) -> None:
        self._true_clock = clock
        self._begin = clock.true
        self._nothing = _NothingToWaitFor()
        super().__init__(self._nothing)
        self._nothing.on_idle = self.stop

    def time(self) -> float:
        # Since the loop was made: of Unix seconds a float cannot hold the nanosecond by which asyncio compares.
        return float(self._true_clock.true - self._begin)

    def settle(self) -> None:
        """Run until every task waits for something that only the model can give, or for a timer."""
        self.run_forever()

    @property
    def next_timer(self) -> float | None:
        """Seconds until the next timer, after `settle`; None when there is none."""
        return self._nothing.next_timer
