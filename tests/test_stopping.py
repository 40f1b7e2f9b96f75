"""How work ends when the process is asked to stop."""

from __future__ import annotations

import asyncio

import pytest

from shipper.errors import ApiUnavailable, Interrupted
from shipper.stopping import until_stopped


async def never() -> None:
    await asyncio.Event().wait()


async def test_work_that_ends_gives_its_result_or_its_error() -> None:
    async def fails() -> None:
        raise ApiUnavailable("gone")

    assert await until_stopped(asyncio.sleep(0, "done"), asyncio.Event()) == "done"
    with pytest.raises(ApiUnavailable):
        await until_stopped(fails(), asyncio.Event())


async def test_work_that_is_cancelled_from_within_has_not_ended_well() -> None:
    """Nobody asked for it: passed on as a cancellation, it would end a task group in silence."""

    async def lost() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled from within"):
        await until_stopped(lost(), asyncio.Event())


async def test_work_that_waits_for_ever_is_cancelled_when_asked() -> None:
    stop = asyncio.Event()
    cancelled = asyncio.Event()

    async def waits() -> None:
        stop.set()
        try:
            await never()
        finally:
            cancelled.set()

    with pytest.raises(Interrupted):
        await until_stopped(waits(), stop)
    await cancelled.wait()


async def test_within_its_grace_work_may_end_by_itself() -> None:
    """It saves what it has after the stop; its own word on how it ended counts."""
    stop = asyncio.Event()
    saved = []

    async def saves() -> str:
        await stop.wait()
        await asyncio.sleep(0)
        saved.append("rows")
        return "ended"

    stop.set()
    assert await until_stopped(saves(), stop, grace=60) == "ended"
    assert saved == ["rows"]
