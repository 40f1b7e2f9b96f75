"""Delivery: what is pending in the outbox is sent, and what became of it is written down."""

from __future__ import annotations

import asyncio
import random as randomness
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any

from shipper.config import Settings
from shipper.detect import findings
from shipper.detect.alerts import outbox, stdout
from shipper.detect.alerts.answers import Reply, Verdict
from shipper.detect.alerts.destinations import DESTINATIONS, Item, receiver_of
from shipper.detect.alerts.outbox import Alert, State, chunks
from shipper.detect.alerts.sender import Sender
from shipper.detect.alerts.turns import in_turn, portions, requests
from shipper.detect.findings import Finding
from shipper.detection_settings import RouteSettings
from shipper.errors import AlertError, ConfigError
from shipper.load.clickhouse import Database
from shipper.telemetry import logger

# A route that failed so often in a row is left alone until the next run. One alert that fails does not hold up others.
_FAILURES = 3

# So many findings are looked up at once, per route.
_FINDINGS = 100

# A replica that lags may not have the finding yet. So many seconds after it was queued it never will.
_LONGEST_LAG = 24 * 3600
_UNKNOWN = "the finding is not in the table"
_UNKNOWN_HINT = "The alert stays pending for a day: a replica may not have the finding yet."


@dataclass(slots=True)
class RouteReport:
    """What became of the alerts of one route. `error` and `hint` are of the last one that was not accepted."""

    route: str
    delivered: int = 0
    refused: int = 0
    pending: int = 0
    error: str = ""
    hint: str = ""

    def failure(self) -> AlertError | None:
        """The error to show, None when all went well."""
        if not self.error:
            return None
        left = [f"{self.refused} refused" if self.refused else "", f"{self.pending} pending" if self.pending else ""]
        counts = f" ({', '.join(filter(None, left))})" if any(left) else ""
        return AlertError(f"alert route {self.route!r}{counts}: {self.error}", hint=self.hint)


@dataclass(slots=True)
class Report:
    """What one delivery did, or several, per route: the configured ones, and those that something waits for."""

    routes: list[RouteReport] = field(default_factory=list)

    def following(self, earlier: Report) -> Report:
        """Both as one: what was delivered and refused is added up, the rest is as this one, the later, left it.

        But an earlier refusal, which is for good, is told unless there is a later error.
        """
        before = {one.route: one for one in earlier.routes}
        both = []
        for one in self.routes:
            was = before.get(one.route, RouteReport(one.route))
            told = was if was.refused and not one.error else one
            delivered, refused = was.delivered + one.delivered, was.refused + one.refused
            both.append(replace(one, delivered=delivered, refused=refused, error=told.error, hint=told.hint))
        return Report(both)

    @property
    def delivered(self) -> int:
        return sum(one.delivered for one in self.routes)

    @property
    def refused(self) -> int:
        return sum(one.refused for one in self.routes)

    @property
    def pending(self) -> int:
        return sum(one.pending for one in self.routes)

    @property
    def errors(self) -> list[AlertError]:
        """One per route with something to say."""
        return [error for one in self.routes if (error := one.failure()) is not None]

    def as_dict(self) -> dict[str, Any]:
        return {
            "delivered": self.delivered,
            "refused": self.refused,
            "pending": self.pending,
            "routes": [asdict(one) for one in self.routes],
        }


Send = Callable[[Sequence[Item], int | None], Awaitable[Reply]]


def _write_out(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


async def deliver(  # noqa: PLR0913 - time, chance and the output are arguments
    database: Database,
    settings: Settings,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    random: Callable[[], float] = randomness.random,
    write: Callable[[str], None] = _write_out,
    stop: asyncio.Event | None = None,
) -> Report:
    """Send what is pending, all routes at the same time: one that is down does not stop the others.

    What failed least often goes first, then the oldest; of one finding no alert before those that came before it.

    What was accepted or refused is written down at once. A crash between the two repeats that one request, under the
    same key. What could not be delivered stays pending, with its error. After `stop` no request is begun. Raises
    DatabaseError, after the other routes have come to their end; nothing that a receiver does raises.
    """
    waiting = await outbox.unfinished(database)
    by_route = {name: list(group) for name, group in groupby(sorted(waiting, key=_route_of), key=_route_of)}
    configured = {route.name: route for route in settings.alert_routes}
    reports = {
        name: RouteReport(name, pending=len(by_route.get(name, ()))) for name in sorted({*configured, *by_route})
    }
    for name in by_route.keys() - configured.keys():
        reports[name].error = "the route is not configured any more"
        reports[name].hint = "Its alerts stay pending. Give a route that name again, in alert_routes, to send them."
    stop = stop or asyncio.Event()
    async with Sender(settings, retries=settings.retries, clock=clock, sleep=sleep, random=random, stop=stop) as sender:
        deliveries = [
            _Delivery(database, _sending(configured[name], settings, sender, write), reports[name], clock, stop).run(
                configured[name], alerts
            )
            for name, alerts in by_route.items()
            if name in configured
        ]
        results = await asyncio.gather(*deliveries, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    for name in by_route:
        logger().info("alerts", **asdict(reports[name]))
    return Report(list(reports.values()))


def _route_of(alert: Alert) -> str:
    return alert.route


def _sending(route: RouteSettings, settings: Settings, sender: Sender, write: Callable[[str], None]) -> Send:
    """How alerts are sent on this route. A route that cannot be used fails at every request."""
    build = DESTINATIONS[route.type].build
    if build is None:

        async def print_out(items: Sequence[Item], retries: int | None) -> Reply:
            try:
                write("".join(stdout.line(item.finding) for item in items))
            except OSError as error:
                return Reply(Verdict.FAILED, f"standard output: {error.strerror}")
            return Reply(Verdict.ACCEPTED, "written")

        return print_out
    try:
        receiver = receiver_of(route, settings)
    except ConfigError as error:
        unusable = Reply(Verdict.FAILED, str(error), error.hint)

        async def refuse(items: Sequence[Item], retries: int | None) -> Reply:
            return unusable

        return refuse

    async def post(items: Sequence[Item], retries: int | None) -> Reply:
        return await sender.send(receiver, lambda now: build(receiver, items, now), retries=retries)

    return post


@dataclass(slots=True)
class _Delivery:
    """The alerts of one route, one request after the other."""

    database: Database
    send: Send
    report: RouteReport
    clock: Callable[[], float]
    stop: asyncio.Event
    failures: int = 0
    failed: set[str] = field(default_factory=set)

    async def run(self, route: RouteSettings, alerts: Sequence[Alert]) -> None:
        batch = DESTINATIONS[route.type].batch
        for some in chunks(in_turn(alerts), _FINDINGS):
            for part in await portions(self.database, some):
                if self._over():
                    return
                await self._deliver_all(part, batch)

    def _over(self) -> bool:
        return self.stop.is_set() or self.failures >= _FAILURES

    async def _deliver_all(self, alerts: Sequence[Alert], batch: int) -> None:
        wanted = tuple({alert.finding_id for alert in alerts})
        known = {one.id: one for one in await findings.read(self.database, findings.Filter(ids=wanted))}
        await self._missing([alert for alert in alerts if alert.finding_id not in known])
        for request in requests([alert for alert in alerts if alert.finding_id in known], batch):
            if self._over():
                return
            await self._deliver(request, known)

    async def _missing(self, alerts: Sequence[Alert]) -> None:
        """Those whose finding was not found. That is no failure of the route."""
        oldest = self.clock() - _LONGEST_LAG
        await self._done([one for one in alerts if one.queued_at < oldest], Reply(Verdict.REFUSED, _UNKNOWN))
        waiting = [one for one in alerts if one.queued_at >= oldest]
        await self._done(waiting, Reply(Verdict.FAILED, _UNKNOWN, _UNKNOWN_HINT))

    async def _deliver(self, alerts: Sequence[Alert], known: dict[str, Finding]) -> None:
        """One request. What came after an alert of the same finding that has just failed waits for it."""
        alerts = [one for one in alerts if one.finding_id not in self.failed]
        if not alerts:
            return
        items = [Item(known[one.finding_id], one.action) for one in alerts]
        # The first failure has used up the retries.
        reply = await self.send(items, 0 if self.failures else None)
        if reply.verdict is Verdict.REFUSED and len(alerts) > 1:
            # One of them is wrong, and the others are not to be lost for it.
            for alert in alerts:
                await self._deliver([alert], known)
            return
        if reply.verdict is not Verdict.REFUSED:
            self.failures = 0 if reply.verdict is Verdict.ACCEPTED else self.failures + 1
        await self._done(alerts, reply)

    async def _done(self, alerts: Sequence[Alert], reply: Reply) -> None:
        if not alerts:
            return
        report, now = self.report, self.clock()
        if reply.verdict is Verdict.ACCEPTED:
            await outbox.note(self.database, alerts, State.DELIVERED, "", now)
            report.delivered += len(alerts)
            report.pending -= len(alerts)
            return
        report.error, report.hint = reply.message, reply.hint
        if reply.verdict is Verdict.REFUSED:
            await outbox.note(self.database, alerts, State.REFUSED, reply.message, now)
            report.refused += len(alerts)
            report.pending -= len(alerts)
            return
        self.failed.update(alert.finding_id for alert in alerts)
        await outbox.note(self.database, alerts, State.PENDING, reply.message, now)
