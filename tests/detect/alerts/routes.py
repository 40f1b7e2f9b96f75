"""Routes, settings and deliveries for the tests: nothing of the environment, and no waiting."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from shipper.config import Settings
from shipper.detect import findings
from shipper.detect.alerts import outbox
from shipper.detect.alerts.deliver import Report, deliver
from shipper.detect.findings import Finding
from shipper.detection_settings import RouteSettings
from shipper.load.clickhouse import Database
from shipper.model import RunID
from tests.detect.alerts.samples import NOW, finding
from tests.fetch.api import Clock
from tests.secrets_scan import canary

KEY = canary("alerts")
RUN = RunID("run-1")
ONE, TWO, THREE, FOUR, FIVE = (finding(entity=name) for name in ("one", "two", "three", "four", "five"))
_NAMES = {one.id: one.entity for one in (ONE, TWO, THREE, FOUR, FIVE)}


def route(kind: str, url: str = "", **values: Any) -> RouteSettings:
    """A route of this type, for all findings, that is called like its type."""
    given = {"name": kind, "type": kind, "min_severity": "info", **({"url": url} if url else {}), **values}
    if kind in {"pagerduty", "webhook"}:
        given.setdefault("key", KEY)
    return RouteSettings(**given)


def settings(*routes: RouteSettings, **values: Any) -> Settings:
    """Settings with these routes: two retries."""
    return Settings(**{"alert_routes": routes, "retries": 2, "retry_ceiling": "30s", "request_timeout": "5s", **values})


async def queued(database: Database, routes: list[RouteSettings], *found: Finding) -> None:
    """Put the findings into their table, and one second after the other into the outbox for the routes."""
    # Each call is a run of its own: the same rows by the same run would be the same insert.
    await findings.add(database, RunID(uuid4().hex), found, window=(NOW - 300, NOW))
    for number, one in enumerate(found):
        await outbox.queue(database, RUN, [one], routes, (), NOW + number)


class Delivery:
    """Delivers without ever waiting: `clock.slept` has the pauses, `lines` what went to standard output."""

    def __init__(self) -> None:
        self.clock = Clock(NOW + 100)
        self.lines: list[str] = []

    async def __call__(self, database: Database, loaded: Settings, **values: Any) -> Report:
        given = {"clock": self.clock, "sleep": self.clock.sleep, "random": lambda: 1.0, "write": self.lines.append}
        return await deliver(database, loaded, **{**given, **values})


async def states(database: Database) -> dict[tuple[str, str, str], tuple[int, int, str]]:
    """State, attempts and error of every row of the outbox, by route, entity of the finding and action."""
    rows = await database.query("SELECT route, findingID, action, state, attempts, error FROM openai_audit_alerts")
    return {(one, _NAMES.get(two, two), three): (state, tries, error) for one, two, three, state, tries, error in rows}
