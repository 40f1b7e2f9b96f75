"""The commands that move events: run, watch, backfill, replay."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipper.cli.context import metrics_of, settings, until_stopped
from shipper.config import SourceSettings
from shipper.durations import parse_duration, parse_moment
from shipper.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from shipper.config import Settings
    from shipper.metrics import Metrics
    from shipper.run import Run

    Work = Callable[[Run], Awaitable[None]]

Json = Annotated[bool, typer.Option("--json", help="Print the run report as JSON.")]
Force = Annotated[
    bool, typer.Option("--force", help="Read all of it, and replace the rows that are there by new ones.")
]
SourceOption = Annotated[str | None, typer.Option("--source", help="Only the source with this id.")]


def run(as_json: Json = False) -> int:
    """Read every source once: the CronJob's command.

    Ships what the coverage ledger lacks (on the first run: `lookback`), re-reads the `overlap` for events that showed
    up late and, once a day, what is not settled yet. Running it twice changes nothing.
    """
    return ship(settings(), "run", as_json, lambda run: run.read_sources())


def watch(
    interval: Annotated[str, typer.Option(help="Pause between the starts of two passes.")] = "60s",
    detections: Annotated[
        bool, typer.Option("--detect/--no-detect", help="Run the detection rules after each pass.")
    ] = True,
    as_json: Json = False,
) -> int:
    """Do what `run` does, then what `detect` does, again and again.

    SIGTERM or Ctrl-C ends it cleanly.

    An outage of the API or of ClickHouse is reported and tried again at the next pass. An error that will not pass by
    itself, for every source, ends it. So does, at the start, a rule that is not right. What goes wrong in a pass of the
    detections is reported and never ends it. Where another process runs the detections, say --no-detect.
    """
    loaded, pause = settings(), _interval(interval)

    async def passes(stop: asyncio.Event) -> int:
        from shipper.enrich import open_enricher
        from shipper.run import open_run
        from shipper.watch import watch as repeat

        async with AsyncExitStack() as stack:
            enricher = stack.enter_context(open_enricher(loaded))
            metrics = metrics_of(loaded, watching=True)
            if metrics is not None:
                await stack.enter_async_context(metrics.shown(enricher, loaded.metrics_listen))

            async def one() -> Run:
                opening = open_run(loaded, "watch", stop, enricher)
                return await _one_pass(opening, as_json, lambda run: run.read_sources(), metrics)

            look = _looking(loaded, stop, metrics, as_json=as_json) if detections else None
            return await repeat(one, pause, stop, look)

    return until_stopped(passes)


def _looking(
    loaded: Settings, stop: asyncio.Event, metrics: Metrics | None, *, as_json: bool
) -> Callable[[], Awaitable[object]] | None:
    """A pass of the detections; None when every rule is switched off. Raises ConfigError for rules that are not right.

    It does not wait for another one that goes on: that would hold up the next pass of the shipper.
    """
    from shipper.cli.detect import live
    from shipper.detect.rule import configured

    if not (rules := configured(loaded)):
        return None
    impatient = loaded.model_copy(update={"lease_wait": timedelta()})
    return lambda: live(impatient, rules, stop, metrics, as_json=as_json)


def backfill(
    since: Annotated[str, typer.Option(help="Start: 30d (before now), 2026-10-01 or 2026-10-01T08:00:00Z.")],
    until: Annotated[str | None, typer.Option(help="End, exclusive, in the same forms. Default: now.")] = None,
    resweep: Annotated[bool, typer.Option("--resweep", help="Also re-read what the ledger has.")] = False,
    force: Force = False,
    source: SourceOption = None,
    as_json: Json = False,
) -> int:
    """Read a stretch of the past, newest first.

    Many windows are read at once. Only what the coverage ledger lacks is read, so a backfill that was
    stopped goes on where it was. Afterwards `shipper run` also reads what lies between it and the rest. Other
    runs of the source wait meanwhile, for `lease_wait`, and leave with 75.
    """
    from shipper.model import Window

    now = int(time.time())
    start, end = parse_moment(since, now), parse_moment(until, now) if until else now
    if start >= min(end, now):
        raise UsageError("nothing lies between --since and --until", hint="--since must be before --until and now.")
    loaded = settings()
    sources = loaded.all_sources() if source is None else (_source(loaded, source),)
    wanted = Window(start, min(end, now))
    return ship(loaded, "backfill", as_json, lambda run: run.backfill(wanted, sources, resweep=resweep, force=force))


def replay(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="NDJSON, plain, gzip or zstd; - is stdin.")],
    force: Force = False,
    source: SourceOption = None,
    as_json: Json = False,
) -> int:
    """Ship archived events from NDJSON files.

    One JSON event a line, through the very same stages. Events already in the table are left alone, so a
    replay may be repeated. Rows that were deleted come back. No key is needed.
    """
    loaded = settings()
    paths = [None if name == "-" else Path(name) for name in files]
    chosen = (loaded.all_sources()[0] if source is None else _source(loaded, source)).source
    if source is None and len(loaded.all_sources()) > 1:
        raise UsageError("several sources are configured", hint="Say with --source whose events the files hold.")
    return ship(loaded, "replay", as_json, lambda run: run.replay(paths, chosen, force=force))


def ship(loaded: Settings, command: str, as_json: bool, work: Work) -> int:
    """One run in this process: do `work`, print the report, give its exit code."""

    async def once(stop: asyncio.Event) -> int:
        from shipper.run import open_run

        return (await _one_pass(open_run(loaded, command, stop), as_json, work, metrics_of(loaded))).exit_code

    return until_stopped(once)


async def _one_pass(
    opening: AbstractAsyncContextManager[Run], as_json: bool, work: Work, metrics: Metrics | None
) -> Run:
    """Open a run, do the work under a progress display, print the report and the errors."""
    from shipper.cli.progress import progress
    from shipper.cli.render import print_errors, print_hints, print_report

    # Printed after the metrics are written: whoever reads the report may go away.
    async with opening if metrics is None else metrics.measured(opening) as run, progress(run.report):
        await work(run)
    print_report(run.report, as_json=as_json)
    print_hints(run.hints)
    print_errors(run.errors)
    return run


def _source(loaded: Settings, wanted: str) -> SourceSettings:
    for source in loaded.all_sources():
        if source.id == wanted:
            return source
    known = ", ".join(source.id for source in loaded.all_sources())
    raise UsageError(f"no source is called {wanted!r}", hint=f"Configured: {known}")


def _interval(text: str) -> float:
    try:
        seconds = parse_duration(text).total_seconds()
    except ValueError as error:
        raise UsageError(f"--interval: {error}") from None
    if seconds < 1:
        raise UsageError("--interval must be at least 1s")
    return seconds
