"""How work ends when the process is asked to stop: at once, or after a grace in which it may save what it has."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Never, TypeVar

from shipper.errors import Interrupted

_T = TypeVar("_T")


async def raise_when(stop: asyncio.Event) -> Never:
    """Wait until `stop` is set, then raise Interrupted."""
    await stop.wait()
    raise _interrupted()


async def until_stopped(work: Coroutine[Any, Any, _T], stop: asyncio.Event, *, grace: float = 0.0) -> _T:
    """Do `work`. From the moment `stop` is set it has `grace` seconds left; then it is cancelled.

    Raises Interrupted when it was cancelled, whatever it was waiting for: a server that never answers, too. Raises
    RuntimeError when it cancelled itself.
    """
    task = asyncio.create_task(work)
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait({task}, timeout=grace)
        if not task.done():
            raise _interrupted()
        if task.cancelled():
            # Nobody asked for it. Passed on, it would look as if somebody had, and a task group ends on it in silence.
            raise RuntimeError("the work was cancelled from within")
        return await task
    finally:
        stopped.cancel()
        task.cancel()


def _interrupted() -> Interrupted:
    return Interrupted("stopped before the end", hint="What was acknowledged is kept; run it again for the rest.")
