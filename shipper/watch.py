"""Passes again and again, for as long as nobody says stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shipper.errors import AccountingError, ExitCode, Interrupted, LeaseHeld, ShipperError
from shipper.run import Run
from shipper.telemetry import logger


async def watch(
    one_pass: Callable[[], Awaitable[Run]],
    pause: float,
    stop: asyncio.Event,
    look: Callable[[], Awaitable[object]] | None = None,
) -> ExitCode:
    """Do `one_pass` every `pause` seconds until `stop` is set; the database is free between passes.

    After each that read its sources `look`, a pass of the detections, is done. Nothing that it raises ends the others.

    Returns 0 when stopped, or the exit code of a pass that failed for every source in a way that will not pass. Raises
    what a pass raises before it reads, unless that is transient.
    """
    loop = asyncio.get_running_loop()
    while not stop.is_set():
        due = loop.time() + pause
        try:
            run = await one_pass()
            if run.hopeless or any(isinstance(error, AccountingError) for error in run.errors):
                return run.exit_code
        except Interrupted:
            break
        except ShipperError as error:
            if not error.transient:
                raise
            logger().error("pass failed; trying again", error=str(error), hint=error.hint)
        else:
            if look is not None and not stop.is_set():
                await _aside(look)
        try:
            async with asyncio.timeout_at(due):
                await stop.wait()
        except TimeoutError:
            continue
    return ExitCode.OK


async def _aside(look: Callable[[], Awaitable[object]]) -> None:
    """Do a pass of the detections; tell what goes wrong, and go on."""
    try:
        await look()
    except Interrupted:
        return
    except LeaseHeld as error:
        logger().info("detections left to the pass that goes on", reason=str(error))
    except ShipperError as error:
        logger().error("detections failed; trying again after the next pass", error=str(error), hint=error.hint)
    except Exception:  # noqa: BLE001 - a bug in the detections must not stop the shipping
        logger().exception("unexpected error in the detections")
