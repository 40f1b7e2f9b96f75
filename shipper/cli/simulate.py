"""The commands that need no organization: simulate and demo."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipper.cli.context import settings, until_stopped

if TYPE_CHECKING:
    from shipper.demo import Summary


def simulate(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8901,
    seed: Annotated[int, typer.Option(help="Another seed, another organization.")] = 1,
    days: Annotated[int, typer.Option(min=1, max=366, help="Days of history up to now.")] = 30,
    misbehave: Annotated[
        str, typer.Option(help="Faults to inject, such as errors=0.1,latency=0.05; a wrong name lists them.")
    ] = "",
) -> int:
    """Serve a simulated OpenAI organization.

    It answers on the Admin API's real paths. It prints the environment to point the shipper, or OpenAI's
    own SDK, at it. Ctrl-C ends it.
    """
    import time

    from shipper.simulator import Misbehaviour, Organization, Simulator

    faults = Misbehaviour.parse(misbehave)
    settings()

    async def serve(stop: asyncio.Event) -> int:
        organization = Organization.build(seed=seed, now=int(time.time()), days=days)
        async with Simulator(organization, misbehaviour=faults, port=port) as simulator:
            print(f"{len(organization.events):,} events of {days} days. Ctrl-C ends it. In another terminal:")
            print(f"  export OPENAI_BASE_URL={simulator.base_url} OPENAI_ADMIN_KEY={simulator.admin_key}")
            print("  shipper run", flush=True)
            await stop.wait()
        return 0

    return until_stopped(serve)


def demo(
    directory: Annotated[Path, typer.Option(help="Where the embedded ClickHouse keeps its data.")] = Path(
        "shipper-demo"
    ),
) -> int:
    """Ship a simulated month and show what arrived.

    30 days of a simulated organization go into an embedded ClickHouse. Needs no key, no server and no
    network. A second demo in the same directory finds nothing new and says so.
    """
    from shipper.cli.progress import progress
    from shipper.cli.render import print_errors
    from shipper.demo import demo as ship_demo

    settings(log_level="warning")

    async def show(stop: asyncio.Event) -> int:
        print(f"Shipping 30 days of a simulated organization into {directory}/ …", file=sys.stderr)
        summary = await ship_demo(directory, stop, progress)
        _print_summary(summary, directory)
        print_errors(summary.run.errors)
        return summary.run.exit_code

    return until_stopped(show)


def _print_summary(summary: Summary, directory: Path) -> None:
    from shipper.cli.render import print_report, print_table
    from shipper.demo import QUERIES

    report = summary.run.report
    if report.total("received"):
        print_table("Events by day and category", *summary.by_day)
        print_table("Top actors", *summary.top_actors)
        print_table("Countries", *summary.countries)
    print_report(report, as_json=False)
    if not summary.first_time and not report.total("inserted") and not summary.run.errors:
        print(f"Nothing new: {report.total('already_there'):,} events were read again, and each was already there.")
    _print_findings(summary, directory)
    if summary.run.errors:
        return
    print("\nThree queries to try:")
    for title, sql in QUERIES:
        print(f'\n  # {title}\n  SHIPPER_CLICKHOUSE_URL=chdb:{directory} {_program()} query "{sql}"')


def _print_findings(summary: Summary, directory: Path) -> None:
    from shipper.cli.findings import table
    from shipper.detection_settings import Severity

    grave = [one for one in summary.findings if one.severity.rank >= Severity.MEDIUM.rank]
    if not grave:
        return
    table(grave, "What the detections found")
    others = len(summary.findings) - len(grave)
    print(f"{others:,} more are of low severity. All of them, and one in full:")
    print(
        f"  SHIPPER_CLICKHOUSE_URL=chdb:{directory} {_program()} findings list\n"
        f"  SHIPPER_CLICKHOUSE_URL=chdb:{directory} {_program()} findings show {grave[0].id[:10]}"
    )


def _program() -> str:
    """How to call this program from the folder one is in, so that what is printed can be pasted."""
    program = Path(sys.argv[0]).absolute()
    if program.is_relative_to(Path.cwd()):
        return str(program.relative_to(Path.cwd()))
    return "shipper" if shutil.which("shipper") else str(program)
