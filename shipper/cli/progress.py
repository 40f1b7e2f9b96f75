"""Progress of a run: a bar on a terminal, a log line now and then elsewhere. Both only read the run report."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from shipper.telemetry import RunReport, logger

_BAR_EVERY = 0.2
_LINE_EVERY = 10.0


@asynccontextmanager
async def progress(report: RunReport) -> AsyncGenerator[None]:
    """Show the progress of `report` while the body runs."""
    watcher = asyncio.create_task(_bar(report) if sys.stderr.isatty() else _lines(report))
    try:
        yield
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)


async def _lines(report: RunReport) -> None:
    while True:
        await asyncio.sleep(_LINE_EVERY)
        logger().info(
            "progress",
            windows=f"{report.total('windows_read')}/{report.total('windows')}",
            received=report.total("received"),
            inserted=report.total("inserted"),
        )


async def _bar(report: RunReport) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} windows"),
        TextColumn("{task.fields[received]} events"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(report.command, total=None, received=0)
        while True:
            bar.update(
                task,
                total=report.total("windows") or None,
                completed=report.total("windows_read"),
                received=report.total("received"),
            )
            await asyncio.sleep(_BAR_EVERY)
