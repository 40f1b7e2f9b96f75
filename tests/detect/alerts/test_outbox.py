"""The outbox: each finding is queued once per route that takes it, however often it is found."""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import uuid4

import pytest

from shipper.detect import findings
from shipper.detect.alerts import outbox
from shipper.detect.alerts.outbox import Alert, Queued, State
from shipper.detection_settings import RouteSettings, Severity, SuppressionSettings
from shipper.load.retry import RetryingDatabase
from shipper.model import RunID
from tests.detect.alerts.routes import FIVE, FOUR, ONE, RUN, THREE, TWO, route, states
from tests.detect.alerts.samples import NOW, finding

SLACK = route("slack", "https://hooks.slack.example/x")
PAGER = route("pagerduty")
ALERTMANAGER = route("alertmanager", "http://127.0.0.1:9093")
STDOUT = route("stdout")

_PENDING = (State.PENDING, 0, "")


async def test_a_finding_is_queued_once_however_often_it_is_found(database: RetryingDatabase) -> None:
    """The same run again, another run, and twice in one call: one row, with the time of the first."""
    assert await outbox.queue(database, RUN, [ONE, ONE], [SLACK], (), NOW) == Queued({"slack": 1})
    assert await outbox.queue(database, RUN, [ONE], [SLACK], (), NOW + 1) == Queued()
    assert await outbox.queue(database, RunID("run-2"), [ONE, TWO], [SLACK], (), NOW + 2) == Queued({"slack": 1})
    assert await outbox.unfinished(database) == [
        Alert("slack", ONE.id, "trigger", State.PENDING, NOW, 0, 0, ""),
        Alert("slack", TWO.id, "trigger", State.PENDING, NOW + 2, 0, 0, ""),
    ]


async def test_a_delivered_alert_stays_delivered_when_it_is_queued_again(database: RetryingDatabase) -> None:
    """Also by a run that did not see the row: two that queue at the same time."""
    await outbox.queue(database, RUN, [ONE], [SLACK], (), NOW)
    await outbox.note(database, await outbox.unfinished(database), State.DELIVERED, "", NOW + 5)
    await outbox._write(database, RunID("blind"), [outbox._pending("slack", ONE.id, "trigger", NOW + 9)])
    assert await states(database) == {("slack", "one", "trigger"): (State.DELIVERED, 1, "")}
    assert await outbox.unfinished(database) == []


async def test_each_route_takes_what_its_filters_let_through(database: RetryingDatabase) -> None:
    """By severity and by rule; what no route takes is queued for none."""
    grave = route("slack", "https://x", name="grave", min_severity="critical")
    of_rule = route("slack", "https://x", name="of-rule", rules=("own-rule",))
    both = route("slack", "https://x", name="both", min_severity="high", rules=("own-rule", "other"))
    found = [
        finding(entity="one", severity=Severity.CRITICAL),
        finding(entity="two", severity=Severity.HIGH, rule="own-rule"),
        finding(entity="three", severity=Severity.LOW, rule="own-rule"),
        finding(entity="four", severity=Severity.HIGH),
    ]
    told = await outbox.queue(database, RUN, found, [grave, of_rule, both], (), NOW)
    assert told == Queued({"grave": 1, "of-rule": 2, "both": 1})
    names = {one.id: one.entity for one in found}
    assert {(one.route, names[one.finding_id]) for one in await outbox.unfinished(database)} == {
        *(("grave", "one"), ("of-rule", "two"), ("of-rule", "three"), ("both", "two")),
    }


def suppression(entity: str, **values: Any) -> SuppressionSettings:
    given = {"rule": ONE.rule, "entity": entity, "until": date(2026, 11, 18), "reason": "a drill", **values}
    return SuppressionSettings(**given)


async def test_a_suppressed_finding_is_not_queued_until_the_suppression_ends(database: RetryingDatabase) -> None:
    """Through the last second of its last day; afterwards the next run that adds to the finding queues it."""
    midnight = 1_795_046_400  # 2026-11-19T00:00:00Z
    rules = [suppression("on."), suppression("t", until=date(2030, 1, 1)), suppression("two", rule="another")]
    assert await outbox.queue(database, RUN, [ONE, TWO], [SLACK], rules, midnight - 1) == Queued({"slack": 1}, 1)
    assert await states(database) == {("slack", "two", "trigger"): _PENDING}
    assert await outbox.queue(database, RUN, [ONE, TWO], [SLACK], rules, midnight) == Queued({"slack": 1}, 0)
    assert await states(database) == {("slack", "one", "trigger"): _PENDING, ("slack", "two", "trigger"): _PENDING}


async def test_many_findings_are_queued_in_one_go(database: RetryingDatabase) -> None:
    """More than one query can name."""
    found = [finding(entity=f"number {number}") for number in range(1_201)]
    assert await outbox.queue(database, RUN, found, [SLACK, STDOUT], (), NOW) == Queued({"slack": 1201, "stdout": 1201})
    assert (await outbox.queue(database, RunID("run-2"), found, [SLACK, STDOUT], (), NOW)).total == 0
    assert len(await outbox.unfinished(database)) == 2_402


async def test_nothing_is_asked_and_written_for_nothing() -> None:
    """A quiet run costs the database nothing."""
    untouched: Any = None
    assert await outbox.queue(untouched, RUN, [], [SLACK], (), NOW) == Queued()
    assert await outbox.queue(untouched, RUN, [ONE], [], (), NOW) == Queued()
    assert await outbox.queue_resolve(untouched, [], [PAGER], NOW) == 0
    await outbox.note(untouched, [], State.DELIVERED, "", NOW)


async def test_an_end_is_queued_where_the_beginning_was_told(database: RetryingDatabase) -> None:
    """Only on routes that know an end: delivered, or pending and about to be; not where it was refused or not sent."""
    routes = [SLACK, PAGER, ALERTMANAGER, STDOUT]
    await outbox.queue(database, RUN, [ONE], routes, (), NOW)
    await outbox.queue(database, RUN, [TWO], [PAGER], (), NOW)
    await outbox.queue(database, RUN, [THREE], [PAGER], (), NOW)
    pending = {(one.route, one.finding_id): one for one in await outbox.unfinished(database)}
    told = [one for (name, finding_id), one in pending.items() if finding_id == ONE.id]
    await outbox.note(database, told, State.DELIVERED, "", NOW + 1)
    await outbox.note(database, [pending["pagerduty", TWO.id]], State.REFUSED, "400", NOW + 1)
    before = await states(database)
    wanted = [ONE.id, TWO.id, THREE.id, FOUR.id]
    assert await outbox.queue_resolve(database, wanted, routes, NOW + 10) == 3
    assert await outbox.queue_resolve(database, wanted, routes, NOW + 20) == 0
    assert await states(database) == before | {
        ("pagerduty", "one", "resolve"): _PENDING,
        ("alertmanager", "one", "resolve"): _PENDING,
        ("pagerduty", "three", "resolve"): _PENDING,
    }
    assert await outbox.queue_resolve(database, [FIVE.id], routes, NOW) == 0


async def actions(database: RetryingDatabase) -> list[str]:
    """What the outbox has, in the order of its times."""
    rows = await database.query("SELECT action FROM openai_audit_alerts ORDER BY queuedAt, route, action DESC")
    return [action for (action,) in rows]


async def acknowledged(database: RetryingDatabase, now: float, *routes: RouteSettings) -> int:
    """As `shipper findings ack` does it."""
    await findings.acknowledge(database, [ONE.id], now=now, by="eve", note="")
    return await outbox.queue_resolve(database, [ONE.id], routes, now)


async def test_what_grows_after_an_acknowledgement_is_told_again_and_ended_again(database: RetryingDatabase) -> None:
    """Once for each acknowledgement, however often it grows; what has not grown is not."""
    first, second = int(NOW * 1000 + 10_123), int(NOW * 1000 + 30_000)
    assert (await outbox.queue(database, RUN, [ONE], [PAGER], (), NOW, grown={ONE.id})).total == 1
    assert (await outbox.queue(database, RUN, [ONE], [PAGER], (), NOW + 5, grown={ONE.id})).total == 0
    assert await acknowledged(database, NOW + 10.123, PAGER) == 1
    assert (await outbox.queue(database, RUN, [ONE, TWO], [PAGER], (), NOW + 15)) == Queued({"pagerduty": 1})
    assert (await outbox.queue(database, RUN, [ONE, TWO], [PAGER], (), NOW + 16, grown={TWO.id})).total == 0
    for later, count in ((20, 1), (21, 0)):
        told = await outbox.queue(database, RUN, [ONE], [PAGER], (), NOW + later, grown={ONE.id})
        assert told.total == count
    assert await acknowledged(database, NOW + 30, PAGER) == 1
    assert await acknowledged(database, NOW + 30, PAGER) == 0
    told = await outbox.queue(database, RUN, [ONE], [PAGER], (), NOW + 40, grown=[ONE.id])
    assert told == Queued({"pagerduty": 1})
    rows = await outbox.unfinished(database)
    assert [(one.action, one.queued_at) for one in rows if one.finding_id == ONE.id] == [
        ("trigger", NOW),
        ("resolve", NOW + 10.123),
        (f"trigger/{first}", NOW + 20),
        (f"resolve/{first}", NOW + 30),
        (f"trigger/{second}", NOW + 40),
    ]


async def test_every_route_that_takes_a_finding_is_told_again(database: RetryingDatabase) -> None:
    """Also those that know no end. One that is new is told once, and a suppressed finding is not told."""
    await outbox.queue(database, RUN, [ONE], [SLACK, PAGER], (), NOW)
    await acknowledged(database, NOW + 10, SLACK, PAGER)
    routes = [SLACK, PAGER, STDOUT, route("slack", "https://x", name="grave", min_severity="critical")]
    rules = [suppression("one")]
    assert await outbox.queue(database, RUN, [ONE], routes, rules, NOW + 20, grown={ONE.id}) == Queued({}, 1)
    told = await outbox.queue(database, RUN, [ONE], routes, (), NOW + 30, grown={ONE.id})
    assert told == Queued({"slack": 1, "pagerduty": 1, "stdout": 1})
    assert (await outbox.queue(database, RUN, [ONE], routes, (), NOW + 40)).total == 0
    assert sorted(one for one in await actions(database) if "/" in one) == [f"trigger/{NOW * 1000 + 10_000}"] * 3


async def test_a_run_that_died_before_it_queued_does_not_cost_the_second_alert(database: RetryingDatabase) -> None:
    """It added the events; the next one finds nothing new, but the table says that it has grown since."""
    await outbox.queue(database, RUN, [ONE], [SLACK], (), NOW)
    await acknowledged(database, NOW + 10)
    for seconds, count in ((5, 0), (15, 1)):
        grown = finding(entity="one", last_detected_at=NOW * 1000 + seconds * 1000)
        await findings.add(database, RunID(uuid4().hex), [grown], window=(0, 1))
        assert (await outbox.queue(database, RUN, [grown], [SLACK], (), NOW + 20)).total == count


async def test_a_clock_that_is_behind_puts_no_end_before_its_beginning(database: RetryingDatabase) -> None:
    """Neither that of the host that acknowledges, nor that of the one that detects."""
    await outbox.queue(database, RUN, [ONE], [PAGER], (), NOW + 0.5)
    assert await acknowledged(database, NOW - 300, PAGER) == 1
    await outbox.queue(database, RUN, [ONE], [PAGER], (), NOW - 100, grown={ONE.id})
    assert await acknowledged(database, NOW - 200, PAGER) == 1
    opening = (NOW - 300) * 1000
    assert [(one.action, round((one.queued_at - NOW) * 1000)) for one in await outbox.unfinished(database)] == [
        ("trigger", 500),
        ("resolve", 501),
        (f"trigger/{opening}", 502),
        (f"resolve/{opening}", 503),
    ]


async def test_a_route_that_is_gone_is_told_no_end(database: RetryingDatabase) -> None:
    await outbox.queue(database, RUN, [ONE], [PAGER], (), NOW)
    assert await outbox.queue_resolve(database, [ONE.id], [ALERTMANAGER], NOW) == 0


async def test_refused_alerts_are_listed_on_request(database: RetryingDatabase) -> None:
    await outbox.queue(database, RUN, [ONE, TWO], [SLACK], (), NOW)
    first, second = sorted(await outbox.unfinished(database))
    await outbox.note(database, [first], State.REFUSED, "404 Not Found", NOW + 5.5)
    assert await outbox.unfinished(database) == [second]
    assert await outbox.unfinished(database, refused=True) == sorted(
        [second, first._replace(state=State.REFUSED, done_at=NOW + 5.5, attempts=1, error="404 Not Found")],
        key=lambda one: one.finding_id,
    )


@pytest.mark.parametrize("state", [State.PENDING, State.REFUSED])
async def test_each_try_is_counted_and_the_last_error_kept(database: RetryingDatabase, state: State) -> None:
    """The same words twice are two tries."""
    await outbox.queue(database, RUN, [ONE], [SLACK], (), NOW)
    for _ in range(2):
        await outbox.note(database, await outbox.unfinished(database), State.PENDING, "500 again", NOW + 1)
    assert await states(database) == {("slack", "one", "trigger"): (State.PENDING, 2, "500 again")}
    await outbox.note(database, await outbox.unfinished(database), state, "400", NOW + 2)
    assert await states(database) == {("slack", "one", "trigger"): (state, 3, "400")}
