"""The pace of a key's requests, on a clock that moves only when somebody sleeps."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from shipper.fetch.ratelimit import Pace, RateLimiter
from tests.fetch.api import Clock


async def test_requests_are_spaced_at_the_ceiling_from_the_first_on() -> None:
    """Five a second: the first at once, then one each 0.2 s, and no burst after an idle time."""
    clock = Clock(0.0)
    limiter = RateLimiter(5.0, clock=clock, sleep=clock.sleep)
    times = [await limiter.acquire() for _ in range(4)]
    clock.now += 60
    times += [await limiter.acquire() for _ in range(3)]
    assert times == pytest.approx([0.0, 0.2, 0.4, 0.6, 60.6, 60.8, 61.0])


async def test_turns_are_given_in_the_order_of_asking() -> None:
    """Many tasks, one pace, nobody is overtaken."""
    clock = Clock(0.0)
    limiter = RateLimiter(10.0, clock=clock, sleep=clock.sleep)
    turns: list[tuple[int, float]] = []

    async def ask(number: int) -> None:
        turns.append((number, await limiter.acquire()))

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(ask(number))
    assert [number for number, _ in turns] == list(range(20))
    assert [moment for _, moment in turns] == pytest.approx([number / 10 for number in range(20)])


async def test_a_cancelled_request_takes_no_turn() -> None:
    """The next in line gets it, and nothing stays locked."""
    clock = Clock(0.0)
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        if not asleep.is_set():
            asleep.set()
            await asyncio.Event().wait()
        await clock.sleep(seconds)

    limiter = RateLimiter(1.0, clock=clock, sleep=sleep)
    await limiter.acquire()
    waiting = asyncio.create_task(limiter.acquire())
    await asleep.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await limiter.acquire() == pytest.approx(1.0)


async def test_a_pause_holds_everybody_even_who_was_already_waiting() -> None:
    """A 429 that arrives while another request sleeps moves that request's turn too."""
    clock = Clock(0.0)
    limiter: RateLimiter

    async def sleep(seconds: float) -> None:
        if not clock.slept:
            limiter.throttled(0.0, pause=30.0)
        await clock.sleep(seconds)

    limiter = RateLimiter(1.0, clock=clock, sleep=sleep)
    await limiter.acquire()
    assert await limiter.acquire() == pytest.approx(30.0)
    assert await limiter.acquire() == pytest.approx(32.0)
    assert limiter.rate == 0.5


async def test_a_late_wake_up_is_made_up_for_and_the_ceiling_holds_all_the_same() -> None:
    """Turns come late, by up to two of them: the pace is kept all the same, and no second gets a request more."""
    chance = random.Random(5)
    clock = Clock(0.0)

    async def oversleep(seconds: float) -> None:
        await clock.sleep(seconds + chance.choice([0.0, 0.002, 0.005, 0.009, 0.02]))

    limiter = RateLimiter(100.0, clock=clock, sleep=oversleep)
    turns: list[float] = []

    async def ask() -> None:
        turns.append(await limiter.acquire())

    async with asyncio.TaskGroup() as group:
        for _ in range(1000):
            group.create_task(ask())
    # A wake-up that is late by more than a turn is made up for by one turn: 10 ms of 20, one time in five.
    assert turns[-1] == pytest.approx(9.99 + 200 * 0.01, rel=0.05)
    assert max(sum(first <= turn <= first + 1 for turn in turns) for first in turns) <= 101


async def test_an_idle_time_is_not_made_up_for() -> None:
    """Who asks late leaves late: two who come together after a pause are spaced."""
    clock = Clock(0.0)
    limiter = RateLimiter(10.0, clock=clock, sleep=clock.sleep)
    await limiter.acquire()
    clock.now = 0.19
    assert [await limiter.acquire(), await limiter.acquire()] == pytest.approx([0.19, 0.29])


def test_one_burst_of_429s_halves_the_rate_once() -> None:
    """Requests that were under way together met the same limit; a later 429 halves again, down to a floor."""
    pace = Pace(8.0)
    for granted in (0.0, 0.1, 0.2):
        pace.throttled(granted, now=1.0, pause=0.0)
    assert pace.rate == 4.0
    pace.throttled(1.5, now=2.0, pause=0.0)
    assert pace.rate == 2.0
    for moment in range(3, 50):
        pace.throttled(float(moment), now=float(moment), pause=0.0)
    assert pace.rate == 8.0 / 32


def test_the_rate_recovers_slowly_and_never_passes_the_ceiling() -> None:
    """25 successes undo one halving; more change nothing."""
    pace = Pace(10.0)
    pace.throttled(0.0, now=0.0, pause=0.0)
    rates = []
    for _ in range(30):
        pace.succeeded()
        rates.append(pace.rate)
    assert rates[:3] == pytest.approx([5.2, 5.4, 5.6])
    assert rates[23] < 10.0
    assert rates[24:] == pytest.approx([10.0] * 6)
    assert max(rates) <= 10.0


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    """The latest moment anyone asked for counts."""
    pace = Pace(1.0)
    pace.throttled(0.0, now=0.0, pause=60.0)
    pace.throttled(0.0, now=1.0, pause=5.0)
    assert pace.wait(10.0) == 50.0


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_the_ceiling_holds(seed: int) -> None:
    """Random successes, 429s and idle times: never more than the ceiling in any second."""
    chance = random.Random(seed)
    clock = Clock(0.0)
    ceiling = chance.uniform(0.5, 20)
    limiter = RateLimiter(ceiling, clock=clock, sleep=clock.sleep)
    times = []
    for _ in range(300):
        granted = await limiter.acquire()
        times.append(granted)
        clock.now += chance.choice([0.0, 0.0, chance.uniform(0, 2)])
        if chance.random() < 0.1:
            limiter.throttled(granted, chance.choice([0.0, chance.uniform(0, 10)]))
        else:
            limiter.succeeded()
        assert ceiling / 32 <= limiter.rate <= ceiling
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert min(gaps) >= 1 / ceiling - 1e-5
