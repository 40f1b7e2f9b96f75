"""The outbox: each finding is queued once per route that takes it, however often it is found."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from shipper.detect.alerts import outbox
from shipper.detect.alerts.outbox import Alert, Queued, State
from shipper.detection_settings import Severity, SuppressionSettings
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
