"""The test of one route: a made-up finding that says so is sent, and nothing is written down."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from shipper.config import Settings
from shipper.detect import findings
from shipper.detect.alerts import stdout
from shipper.detect.alerts.actions import RESOLVE, TRIGGER
from shipper.detect.alerts.answers import LATER, Verdict
from shipper.detect.alerts.destinations import DESTINATIONS, Item, receiver_of
from shipper.detect.alerts.sender import Sender
from shipper.detect.findings import Finding
from shipper.detection_settings import RouteSettings, Severity
from shipper.errors import AlertError, UsageError


async def try_route(
    settings: Settings, name: str, *, resolve: bool = False, clock: Callable[[], float] = time.time
) -> str:
    """Send the finding, or with `resolve` its end, once, and return what the receiver said.

    Raises UsageError for a route that is not configured or knows no end, ConfigError for one that cannot be used, and
    AlertError when it was not accepted.
    """
    route = _route(settings, name)
    destination = DESTINATIONS[route.type]
    if resolve and not destination.resolves:
        able = [known for known, one in DESTINATIONS.items() if one.resolves]
        raise UsageError(f"a {route.type} route knows no end of an alert", hint=f"Those that do: {', '.join(able)}.")
    item = Item(sample(name, clock()), RESOLVE if resolve else TRIGGER)
    if destination.build is None:
        sys.stdout.write(stdout.line(item.finding))
        return "written"
    build, receiver = destination.build, receiver_of(route, settings)
    async with Sender(settings, retries=0, clock=clock) as sender:
        reply = await sender.send(receiver, lambda now: build(receiver, [item], now))
    if reply.verdict is not Verdict.ACCEPTED:
        # Of a test nothing is pending.
        raise AlertError(f"alert route {name!r}: {reply.message}", hint=reply.hint.removesuffix(LATER).rstrip())
    return reply.message


def _route(settings: Settings, name: str) -> RouteSettings:
    for route in settings.alert_routes:
        if route.name == name:
            return route
    known = ", ".join(route.name for route in settings.alert_routes)
    hint = f"There are: {known}." if known else "None is. `alert_routes` in the configuration file names them."
    raise UsageError(f"no alert route is called {name!r}", hint=hint)


def sample(route: str, now: float) -> Finding:
    """A finding that nobody can take for a real one. Its id is the same every time: a second test opens nothing new."""
    seconds = int(now)
    return Finding(
        workspace_id="test",
        id=findings.finding_id("test", "test", route, 0),
        rule="test",
        entity=f"route {route}",
        bucket_start=seconds,
        title="TEST of openai-audit-shipper, nothing has happened",
        severity=Severity.INFO,
        risk_score=0,
        tactics=(),
        techniques=(),
        first_seen=seconds,
        last_seen=seconds,
        events=(),
        event_types=(),
        actors=(),
        src_ips=(),
        resources=(),
        details=("Somebody ran `shipper alerts test` to see whether this route works. There is nothing to do.",),
        first_detected_at=seconds * 1000,
        last_detected_at=seconds * 1000,
        query="",
        parameters="{}",
        run_id="test",
    )
