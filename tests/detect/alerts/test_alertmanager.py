"""A real Alertmanager takes what we send: an alert is there once however often it is sent, and gone when it ended."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

from shipper.detect import findings
from shipper.detect.alerts import outbox
from shipper.detect.alerts.deliver import Report, RouteReport, deliver
from shipper.load.retry import RetryingDatabase
from shipper.model import iso
from tests.alertmanager_server import alertmanager_url
from tests.detect.alerts.routes import RUN, route, settings
from tests.detect.alerts.samples import HOSTILE, finding

__all__ = ["alertmanager_url"]


def alerts(url: str) -> dict[str, dict[str, Any]]:
    """The alerts that fire, by finding."""
    with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=30) as answer:  # noqa: S310 - our own server
        listed = json.load(answer)
    found = {alert["labels"]["finding_id"]: alert for alert in listed}
    assert len(found) == len(listed)
    return found


async def test_alertmanager_holds_each_finding_once_until_it_ends(
    alertmanager_url: str, database: RetryingDatabase
) -> None:
    """Every kind of finding, sent, sent again as after a crash, and ended when it was acknowledged."""
    loaded = settings(route("alertmanager", alertmanager_url))
    # A lone surrogate is nothing that a table could hold.
    found = [one for name, one in HOSTILE.items() if name != "surrogates"]
    now = time.time()
    await findings.add(database, RUN, found, window=(0, 1))
    await outbox.queue(database, RUN, found, loaded.alert_routes, (), now)
    report = await deliver(database, loaded)
    assert report == Report([RouteReport("alertmanager", delivered=len(found))])

    first = alerts(alertmanager_url)
    assert first.keys() == {one.id for one in found}
    ordinary = first[HOSTILE["ordinary"].id]
    assert ordinary["labels"] == {
        "alertname": "brute-force-then-success",
        "severity": "high",
        "rule": "brute-force-then-success",
        "finding_id": HOSTILE["ordinary"].id,
        "workspace": "default",
    }
    assert ordinary["annotations"]["summary"] == "[HIGH] Brute force, then a sign-in: ada@example.com"
    assert ordinary["status"]["state"] in {"active", "unprocessed"}

    await database.command("TRUNCATE TABLE openai_audit_alerts")
    await outbox.queue(database, RUN, found, loaded.alert_routes, (), now + 1)
    assert (await deliver(database, loaded)).delivered == len(found)
    again = alerts(alertmanager_url)
    assert {one: alert["fingerprint"] for one, alert in again.items()} == {
        one: alert["fingerprint"] for one, alert in first.items()
    }

    ended = [one.id for one in found if one is not HOSTILE["ordinary"]]
    assert await outbox.queue_resolve(database, ended, loaded.alert_routes, now + 2) == len(ended)
    assert (await deliver(database, loaded)).errors == []
    assert alerts(alertmanager_url).keys() == {HOSTILE["ordinary"].id}


async def test_an_attack_that_goes_on_fires_again(alertmanager_url: str, database: RetryingDatabase) -> None:
    """Beside the alert that was acknowledged, which has ended: one of its own, that Alertmanager notifies of."""
    loaded = settings(route("alertmanager", alertmanager_url))
    one, now = finding(entity="goes on"), time.time()
    await findings.add(database, RUN, [one], window=(0, 1))
    await outbox.queue(database, RUN, [one], loaded.alert_routes, (), now)
    assert (await deliver(database, loaded)).delivered == 1
    first = alerts(alertmanager_url)[one.id]
    await findings.acknowledge(database, [one.id], now=now + 1, by="eve", note="")
    await outbox.queue_resolve(database, [one.id], loaded.alert_routes, now + 1)
    await outbox.queue(database, RUN, [one], loaded.alert_routes, (), now + 2, grown={one.id})
    assert (await deliver(database, loaded)).delivered == 2
    again = alerts(alertmanager_url)[one.id]
    assert again["labels"] == {**first["labels"], "reopened": iso(int(now + 1))}
    assert again["fingerprint"] != first["fingerprint"]


async def test_a_wrong_address_costs_no_alert(alertmanager_url: str, database: RetryingDatabase) -> None:
    """Where Alertmanager has nothing the alert waits, with the status told, and goes out once the route is mended."""
    loaded = settings(route("alertmanager", f"{alertmanager_url}/elsewhere"))
    await findings.add(database, RUN, [HOSTILE["ordinary"]], window=(0, 1))
    await outbox.queue(database, RUN, [HOSTILE["ordinary"]], loaded.alert_routes, (), time.time())
    report = await deliver(database, loaded)
    assert (report.pending, report.routes[0].error.partition(" ")[0]) == (1, "404")
    mended = await deliver(database, settings(route("alertmanager", alertmanager_url)))
    assert (mended.delivered, mended.pending) == (1, 0)
