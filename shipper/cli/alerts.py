"""The commands about alerts: alerts test and list."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated

import typer

from shipper.cli.context import settings

if TYPE_CHECKING:
    from shipper.config import Settings
    from shipper.detect.alerts.outbox import Alert

# Of the id of a finding, in a table for people: enough for `shipper findings show`.
_SHORT = 16


def try_route(
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="Name of a route in alert_routes.")],
    resolve: Annotated[bool, typer.Option("--resolve", help="End the test finding of before instead.")] = False,
) -> int:
    """Send a made-up finding through a route and say what came back.

    It is marked as a test, goes out whatever the route's filters say, is tried once and noted nowhere. PagerDuty
    and Alertmanager keep it open: --resolve ends it.
    """
    from shipper.detect.alerts.trial import try_route as send

    said = asyncio.run(send(settings(), route, resolve=resolve))
    print(f"{route}: {said}")
    return 0


def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> int:
    """List the alerts that have not arrived: pending and refused ones.

    A pending one is tried again by the next `shipper detect`. A refused one is not: its receiver said that it will
    not have it. Its finding is kept.
    """
    from shipper.cli.render import human_seconds, print_json, print_table

    loaded, now = settings(), time.time()
    alerts = asyncio.run(_read(loaded))
    if as_json:
        print_json([_as_dict(alert, now) for alert in alerts])
        return 0
    if not alerts:
        print(_nothing(loaded))
        return 0
    headers = ["route", "state", "action", "finding", "age", "attempts", "error"]
    rows: list[list[object]] = []
    for one in alerts:
        age = human_seconds(max(0.0, now - one.queued_at))
        rows.append([one.route, one.state.name.lower(), one.action, one.finding_id[:_SHORT], age, one.attempts])
        rows[-1].append(one.error or "-")
    print_table("", headers, rows)
    print(f"{len(alerts):,} alerts" if len(alerts) != 1 else "1 alert")
    return 0


async def _read(loaded: Settings) -> list[Alert]:
    """Pending and refused alerts; none where nothing was ever shipped."""
    from shipper.detect.alerts.outbox import unfinished
    from shipper.errors import NoDatabase
    from shipper.load import schema
    from shipper.load.clickhouse import connect

    try:
        database = await connect(loaded, create=False)
    except NoDatabase:
        return []
    try:
        return await unfinished(database, refused=True) if await schema.applied(database) else []
    finally:
        await database.close()


def _nothing(loaded: Settings) -> str:
    if not loaded.alert_routes:
        return (
            "No alerts, and no routes: name them in alert_routes of the configuration file. "
            "`shipper alerts test ROUTE` tries one."
        )
    return "No alert is pending, and none was refused: what detections found has arrived, or no route takes it."


def _as_dict(alert: Alert, now: float) -> dict[str, object]:
    from shipper.model import iso

    return {
        "route": alert.route,
        "finding": alert.finding_id,
        "action": alert.action,
        "state": alert.state.name.lower(),
        "queued_at": iso(int(alert.queued_at)),
        "age_seconds": max(0, round(now - alert.queued_at)),
        "done_at": iso(int(alert.done_at)) if alert.done_at else None,
        "attempts": alert.attempts,
        "error": alert.error,
    }
