"""One pace for all requests of a key: never above the ceiling, slower after a 429, back up bit by bit."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

# A wait shorter than this is rounding, not waiting.
_EPSILON = 1e-6

# Of a turn, how much lateness is made up for.
_MADE_UP = 0.99


class Pace:
    """The rule, without a clock of its own. Times are seconds of any monotonic clock.

    Requests are spaced, not bunched: the API publishes no limits for these paths, so no burst is assumed to be free.
    """

    __slots__ = ("_halved_at", "_next", "ceiling", "floor", "rate", "step")

    def __init__(self, ceiling: float) -> None:
        self.ceiling = ceiling
        self.floor = ceiling / 32
        self.step = ceiling / 50
        self.rate = ceiling
        self._next = -math.inf
        self._halved_at = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until the next request may leave."""
        return max(0.0, self._next - now)

    def take(self, now: float, asked: float) -> None:
        """A request leaves now that has waited since `asked`.

        Was it there at its turn and leaves late all the same, because the process was busy, then the one behind it does
        not wait for that again, up to the length of one turn: so no more leave in any stretch of time than of those
        that are in time.
        """
        turn = 1 / self.rate
        self._next = max(self._next, asked, now - turn * _MADE_UP) + turn

    def succeeded(self) -> None:
        self.rate = min(self.ceiling, self.rate + self.step)

    def throttled(self, granted: float, now: float, pause: float) -> None:
        """A request that left at `granted` got a 429. Nobody leaves for `pause` seconds.

        The rate is halved once for all requests that were under way together: they all met the same limit.
        """
        if granted >= self._halved_at:
            self.rate = max(self.floor, self.rate / 2)
            self._halved_at = now
        self._next = max(self._next, now + pause)


class RateLimiter:
    """Lets callers through in the order in which they came. Safe to share between the tasks of one event loop."""

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pace = Pace(rate)
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()

    @property
    def rate(self) -> float:
        """Requests per second at present."""
        return self._pace.rate

    async def acquire(self) -> float:
        """Wait for a turn; returns the moment it was granted, which `throttled` wants back."""
        asked = self._clock()
        async with self._turn:
            # Looked at again after each sleep: a 429 may have moved the next turn meanwhile.
            while (wait := self._pace.wait(self._clock())) > _EPSILON:
                await self._sleep(wait)
            granted = self._clock()
            self._pace.take(granted, asked)
            return granted

    def succeeded(self) -> None:
        """The API took a request."""
        self._pace.succeeded()

    def throttled(self, granted: float, pause: float = 0.0) -> None:
        """The API answered 429 to the request granted at `granted` and asked for `pause` seconds of silence."""
        self._pace.throttled(granted, self._clock(), pause)
