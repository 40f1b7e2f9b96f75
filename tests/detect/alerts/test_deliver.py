"""Delivery: what is pending is sent once, what failed stays, and a crash at any place loses nothing."""

from __future__ import annotations

from typing import Any

from shipper.config import Settings
from shipper.detect import findings
from shipper.detect.alerts import outbox
from shipper.detect.alerts.deliver import Report, RouteReport, deliver
from shipper.detect.alerts.outbox import State
from shipper.detect.findings import Finding
from shipper.detection_settings import RouteSettings
from shipper.load.clickhouse import Database
from shipper.load.retry import RetryingDatabase
from shipper.model import RunID
from tests.detect.alerts.receivers import receiving
from tests.detect.alerts.samples import NOW, finding
from tests.fetch.api import Clock
from tests.secrets_scan import canary

KEY = canary("alerts")
RUN = RunID("run-1")

ONE, TWO = finding(entity="one"), finding(entity="two")


def route(kind: str, url: str = "", **values: Any) -> RouteSettings:
    """A route of this type that is called like it."""
    given = {"name": kind, "type": kind, "min_severity": "info", **values}
    if url:
        given["url"] = url
    if kind in {"pagerduty", "webhook"}:
        given.setdefault("key", KEY)
    return RouteSettings(**given)


def settings(*routes: RouteSettings, **values: Any) -> Settings:
    return Settings(**{"alert_routes": routes, "retries": 2, "retry_ceiling": "30s", "request_timeout": "5s", **values})


async def queued(database: Database, routes: list[RouteSettings], *found: Finding) -> None:
    """The findings are in their table, and in the outbox for the routes."""
    await findings.add(database, RUN, found, window=(NOW - 300, NOW))
    for number, one in enumerate(found):
        await outbox.queue(database, RUN, [one], routes, (), NOW + number)


class Delivery:
    """Delivers without ever waiting. Everything is in `lines` that went to standard output."""

    def __init__(self) -> None:
        self.clock = Clock(NOW + 100)
        self.lines: list[bytes] = []

    async def __call__(self, database: Database, loaded: Settings, **values: Any) -> Report:
        return await deliver(
            database,
            loaded,
            clock=self.clock,
            sleep=self.clock.sleep,
            random=lambda: 1.0,
            write=self.lines.append,
            **values,
        )


async def states(database: Database) -> dict[tuple[str, str, str], tuple[int, int, str]]:
    """State, attempts and error of every row of the outbox, by route, entity's finding and action."""
    rows = await database.query("SELECT route, findingID, action, state, attempts, error FROM openai_audit_alerts")
    names = {ONE.id: "one", TWO.id: "two"}
    return {(one, names.get(two, two), three): (state, tries, error) for one, two, three, state, tries, error in rows}


async def test_what_is_pending_is_sent_once(database: RetryingDatabase) -> None:
    """Oldest first, each noted as delivered; a second delivery has nothing to do."""
    async with receiving() as receiver:
        routes = [route("slack", receiver.url)]
        await queued(database, routes, ONE, TWO)
        report = await Delivery()(database, settings(*routes))
        assert report == Report([RouteReport("slack", delivered=2)])
        assert report.errors == []
        assert ["one" in got.body.decode() for got in receiver.got] == [True, False]
        assert await states(database) == {
            ("slack", "one", "trigger"): (State.DELIVERED, 1, ""),
            ("slack", "two", "trigger"): (State.DELIVERED, 1, ""),
        }
        assert await Delivery()(database, settings(*routes)) == Report([])
        assert len(receiver.got) == 2
