"""Delivery: what is pending is sent once, what failed stays, and a crash at any place loses nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from shipper.detect import findings
from shipper.detect.alerts import outbox
from shipper.detect.alerts.deliver import Report, RouteReport, deliver
from shipper.detect.alerts.outbox import State
from shipper.detect.findings import Proof
from shipper.errors import AlertError, DatabaseUnavailable
from shipper.load.clickhouse import Database
from shipper.load.retry import RetryingDatabase
from shipper.model import RunID
from shipper.telemetry import configure_logging
from tests.detect.alerts.receivers import Got, Says, receiving
from tests.detect.alerts.routes import FIVE, FOUR, ONE, RUN, THREE, TWO, Delivery, queued, route, settings, states
from tests.detect.alerts.samples import NOW, finding

_LATER = "Nothing is lost: the alert stays pending, and the next `shipper detect` tries again."


def entities(got: Sequence[Got]) -> list[str]:
    """Which finding each request was about."""
    known = {one.id: one.entity for one in (ONE, TWO, THREE, FOUR, FIVE)}
    return [name for one in got for finding_id, name in known.items() if finding_id in one.body.decode()]


async def test_what_is_pending_is_sent_once_and_the_oldest_first(database: RetryingDatabase) -> None:
    """Each is noted as delivered, and a second delivery has nothing to do."""
    async with receiving() as receiver:
        loaded = settings(route("slack", receiver.url))
        await queued(database, list(loaded.alert_routes), THREE, ONE, TWO)
        report = await Delivery()(database, loaded)
        assert report == Report([RouteReport("slack", delivered=3)])
        assert (report.delivered, report.refused, report.pending, report.errors) == (3, 0, 0, [])
        assert entities(receiver.got) == ["three", "one", "two"]
        assert set((await states(database)).values()) == {(State.DELIVERED, 1, "")}
        assert await Delivery()(database, loaded) == Report([RouteReport("slack")])
        assert len(receiver.got) == 3


def test_several_deliveries_add_up_to_one_report() -> None:
    """What was sent is summed; what is pending, and why, is as the last one left it. A new route is there as well.

    A refusal is told although what came after it went well.
    """
    first = Report([RouteReport("a", delivered=1, pending=2, error="500", hint="wait")])
    last = Report([RouteReport("a", delivered=2), RouteReport("b", pending=1)])
    assert last.following(first) == Report([RouteReport("a", delivered=3), RouteReport("b", pending=1)])
    refused = Report([RouteReport("a", refused=1, error="400", hint="look")])
    assert last.following(refused).routes[0] == RouteReport("a", 2, 1, 0, "400", "look")
    assert first.following(Report()) == first


async def test_a_finding_that_grew_is_sent_as_it_is_now_and_not_again(database: RetryingDatabase) -> None:
    async with receiving() as receiver:
        loaded = settings(route("slack", receiver.url))
        await queued(database, list(loaded.alert_routes), finding(entity="one"))
        grown = finding(entity="one", actors=("eve@example.com",))
        await queued(database, list(loaded.alert_routes), grown)
        await Delivery()(database, loaded)
        await queued(database, list(loaded.alert_routes), finding(entity="one", actors=("mallory@example.com",)))
        assert (await Delivery()(database, loaded)).delivered == 0
        [got] = receiver.got
        assert "`ada@example.com, eve@example.com`" in got.body.decode()


async def test_a_route_that_is_down_does_not_stop_the_others(database: RetryingDatabase) -> None:
    """Its alerts stay pending, with what went wrong, and are sent when it is up again."""
    async with receiving() as slack, receiving(*[Says(500)] * 5, Says(202)) as pager:
        loaded = settings(route("slack", slack.url), route("pagerduty", pager.url))
        await queued(database, list(loaded.alert_routes), ONE)
        delivery = Delivery()
        report = await delivery(database, loaded)
        assert report == Report(
            [
                RouteReport("pagerduty", pending=1, error="500 Internal Server Error: ok", hint=_LATER),
                RouteReport("slack", delivered=1),
            ]
        )
        [error] = report.errors
        assert isinstance(error, AlertError)
        assert (str(error), error.hint, error.exit_code) == (
            "alert route 'pagerduty' (1 pending): 500 Internal Server Error: ok",
            _LATER,
            69,
        )
        assert delivery.clock.slept == [1.0, 2.0]
        assert await states(database) == {
            ("pagerduty", "one", "trigger"): (State.PENDING, 1, "500 Internal Server Error: ok"),
            ("slack", "one", "trigger"): (State.DELIVERED, 1, ""),
        }
        after = Report([RouteReport("pagerduty", delivered=1), RouteReport("slack")])
        assert await Delivery()(database, loaded) == after
        assert (await states(database))["pagerduty", "one", "trigger"] == (State.DELIVERED, 2, "")
        assert len({json.loads(got.body)["dedup_key"] for got in pager.got}) == 1
        assert (len(slack.got), len(pager.got)) == (1, 6)


async def test_a_route_is_left_alone_after_three_failures_in_a_row(database: RetryingDatabase) -> None:
    """Only the first uses up the retries, so that a dead receiver does not take the run's time for every alert."""
    async with receiving(Says(503)) as receiver:
        loaded = settings(route("slack", receiver.url))
        await queued(database, list(loaded.alert_routes), ONE, TWO, THREE, FOUR, FIVE)
        report = await Delivery()(database, loaded)
        assert (report.delivered, report.pending) == (0, 5)
        assert entities(receiver.got) == ["one", "one", "one", "two", "three"]
        assert [tries for _, tries, _ in (await states(database)).values()].count(0) == 2


async def test_one_alert_that_fails_does_not_hold_up_the_others(database: RetryingDatabase) -> None:
    async with receiving(*[Says(500)] * 3, Says()) as receiver:
        loaded = settings(route("slack", receiver.url))
        await queued(database, list(loaded.alert_routes), ONE, TWO, THREE, FOUR, FIVE)
        report = await Delivery()(database, loaded)
        assert (report.delivered, report.pending) == (4, 1)
        assert entities(receiver.got) == ["one", "one", "one", "two", "three", "four", "five"]


async def test_failures_count_only_in_a_row(database: RetryingDatabase) -> None:
    """After a success the next failure has its retries again."""
    down = [Says(500)] * 3
    async with receiving(*down, Says(), *down, Says(), *down) as receiver:
        loaded = settings(route("slack", receiver.url))
        await queued(database, list(loaded.alert_routes), ONE, TWO, THREE, FOUR, FIVE)
        report = await Delivery()(database, loaded)
        assert (report.delivered, report.pending) == (2, 3)
        assert entities(receiver.got) == [*["one"] * 3, "two", *["three"] * 3, "four", *["five"] * 3]


async def test_a_refused_alert_is_not_sent_again(database: RetryingDatabase) -> None:
    """The others of the route are."""
    async with receiving(Says(400, b"invalid_payload"), Says()) as receiver:
        loaded = settings(route("slack", receiver.url))
        await queued(database, list(loaded.alert_routes), ONE, TWO)
        report = await Delivery()(database, loaded)
        assert [(one.delivered, one.refused, one.pending, one.error) for one in report.routes] == [
            (1, 1, 0, "400 Bad Request: invalid_payload")
        ]
        assert str(report.errors[0]) == "alert route 'slack' (1 refused): 400 Bad Request: invalid_payload"
        assert await states(database) == {
            ("slack", "one", "trigger"): (State.REFUSED, 1, "400 Bad Request: invalid_payload"),
            ("slack", "two", "trigger"): (State.DELIVERED, 1, ""),
        }
        assert await Delivery()(database, loaded) == Report([RouteReport("slack")])
        assert entities(receiver.got) == ["one", "two"]


class Failing:
    """A database whose insert into the outbox fails, as when the process died between sending and noting."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.failed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def insert(self, *arguments: Any, **named: Any) -> None:
        self.failed += 1
        raise DatabaseUnavailable("gone")


@pytest.mark.parametrize("kind", ["pagerduty", "alertmanager", "webhook", "slack"])
async def test_a_crash_between_sending_and_noting_repeats_one_request_under_the_same_key(
    database: RetryingDatabase, kind: str
) -> None:
    """And loses nothing: what had not been sent is sent as well. Slack has no such key: its message is there twice."""
    async with receiving(Says(202) if kind == "pagerduty" else Says()) as receiver:
        loaded = settings(route(kind, receiver.url))
        await queued(database, list(loaded.alert_routes), ONE, TWO)
        with pytest.raises(DatabaseUnavailable):
            await Delivery()(Failing(database), loaded)
        assert set((await states(database)).values()) == {(State.PENDING, 0, "")}
        report = await Delivery()(database, loaded)
        assert (report.delivered, report.pending) == (2, 0)
        sent = [key for got in receiver.got for key in keys(kind, got)]
        expected = [ONE.id, TWO.id] * 2 if kind == "alertmanager" else [ONE.id, ONE.id, TWO.id]
        assert sent == expected


def keys(kind: str, got: Got) -> list[str]:
    """By what the receiver tells a repetition."""
    match kind:
        case "webhook":
            return [got.headers["Idempotency-Key"].removesuffix("-trigger")]
        case "pagerduty":
            return [json.loads(got.body)["dedup_key"]]
        case "alertmanager":
            return [alert["labels"]["finding_id"] for alert in json.loads(got.body)]
        case _:
            return [one.id for one in (ONE, TWO) if one.id in got.body.decode()]


async def test_a_database_that_fails_on_one_route_lets_the_others_finish(database: RetryingDatabase) -> None:
    async with receiving() as first, receiving() as second:
        loaded = settings(route("slack", first.url, name="a"), route("slack", second.url, name="b"))
        await queued(database, list(loaded.alert_routes), ONE)
        failing = Failing(database)
        with pytest.raises(DatabaseUnavailable):
            await Delivery()(failing, loaded)
        assert (len(first.got), len(second.got), failing.failed) == (1, 1, 2)


async def test_a_route_that_is_not_configured_any_more_keeps_its_alerts(database: RetryingDatabase) -> None:
    async with receiving() as receiver:
        gone = route("slack", receiver.url, name="gone")
        await queued(database, [gone], ONE)
        report = await Delivery()(database, settings(route("stdout")))
        assert [(one.route, one.pending, one.error) for one in report.routes] == [
            ("gone", 1, "the route is not configured any more"),
            ("stdout", 0, ""),
        ]
        assert str(report.errors[0]) == "alert route 'gone' (1 pending): the route is not configured any more"
        assert await states(database) == {("gone", "one", "trigger"): (State.PENDING, 0, "")}
        assert (await Delivery()(database, settings(gone))).delivered == 1


async def test_a_route_that_cannot_be_used_keeps_its_alerts(database: RetryingDatabase, tmp_path: Any) -> None:
    """A key file that is not there is no reason to lose them, nor to stop the others."""
    (tmp_path / "pager-key").write_text("")
    async with receiving() as receiver:
        broken = route("pagerduty", receiver.url, key=None, key_file=tmp_path / "pager-key")
        loaded = settings(broken, route("slack", receiver.url))
        await queued(database, list(loaded.alert_routes), ONE)
        report = await Delivery()(database, loaded)
        assert [(one.route, one.delivered, one.pending) for one in report.routes] == [
            ("pagerduty", 0, 1),
            ("slack", 1, 0),
        ]
        assert str(report.errors[0]) == (
            "alert route 'pagerduty' (1 pending): cannot read the key of alert route 'pagerduty' from "
            f"{tmp_path / 'pager-key'}: the file is empty"
        )
        assert len(receiver.got) == 1


async def test_alerts_that_can_never_arrive_do_not_block_their_route(database: RetryingDatabase) -> None:
    """What failed before goes after what did not: three that always fail end no run before the fresh ones are sent."""
    async with receiving(Says(500)) as receiver:
        loaded = settings(route("slack", receiver.url), retries=0)
        await queued(database, list(loaded.alert_routes), ONE, TWO, THREE)
        assert (await Delivery()(database, loaded)).pending == 3
        await outbox.queue(database, RUN, [FOUR, FIVE], loaded.alert_routes, (), NOW + 50)
        await findings.add(database, RUN, [FOUR, FIVE], window=(0, 1))
        receiver.answers[:] = [*[Says(500)] * 3, Says(), Says(), Says(500)]
        report = await Delivery()(database, loaded)
        assert (report.delivered, report.pending) == (2, 3)
        assert sorted(entities(receiver.got)[3:5]) == ["five", "four"]
        assert entities(receiver.got)[5:] == ["one", "two", "three"]


async def test_an_end_does_not_overtake_a_beginning_that_failed(database: RetryingDatabase) -> None:
    """It was tried less often, but it waits; also when the clock that queued it was behind."""
    async with receiving(Says(500)) as receiver:
        loaded = settings(route("pagerduty", receiver.url), retries=0)
        await queued(database, list(loaded.alert_routes), ONE, TWO)
        assert (await Delivery()(database, loaded)).pending == 2
        ends = [outbox._pending("pagerduty", one.id, "resolve", NOW - 9) for one in (ONE, TWO)]
        await outbox._write(database, RUN, ends)
        receiver.answers[:] = [Says(500), Says(500), Says(500), Says(202)]
        report = await Delivery()(database, loaded)
        assert (report.delivered, report.pending) == (2, 2)
        sent = [
            (entity, json.loads(got.body)["event_action"]) for entity, got in zip(*named(receiver.got), strict=True)
        ]
        assert sent[2:] == [("one", "trigger"), ("two", "trigger"), ("two", "resolve")]
        assert (await states(database))["pagerduty", "one", "resolve"] == (State.PENDING, 0, "")


def named(got: Sequence[Got]) -> tuple[list[str], Sequence[Got]]:
    known = {one.id: one.entity for one in (ONE, TWO)}
    return [known[json.loads(one.body)["dedup_key"]] for one in got], got


@pytest.mark.parametrize("kind", ["pagerduty", "alertmanager"])
async def test_an_attack_that_goes_on_is_opened_anew(database: RetryingDatabase, kind: str) -> None:
    """Opened, ended, opened and ended again in one delivery, never two of them in one request."""
    async with receiving(Says(202) if kind == "pagerduty" else Says()) as receiver:
        loaded = settings(route(kind, receiver.url))
        await queued(database, list(loaded.alert_routes), ONE)
        for later in (10, 20):
            await findings.acknowledge(database, [ONE.id], now=NOW + later, by="eve", note="")
            await outbox.queue_resolve(database, [ONE.id], loaded.alert_routes, NOW + later)
            if later == 10:
                await outbox.queue(database, RUN, [ONE], loaded.alert_routes, (), NOW + 15, grown={ONE.id})
        report = await Delivery()(database, loaded)
        assert (report.delivered, report.pending, len(receiver.got)) == (4, 0, 4)
        bodies = [json.loads(got.body) for got in receiver.got]
        if kind == "pagerduty":
            assert [one["event_action"] for one in bodies] == ["trigger", "resolve"] * 2
            assert {one["dedup_key"] for one in bodies} == {ONE.id}
        else:
            assert [one["labels"].get("reopened") for [one] in bodies] == [None, None, *["2026-11-18T11:06:50Z"] * 2]
            assert [one["endsAt"] > "2026-11-18T11:08:20Z" for [one] in bodies] == [True, False, True, False]


async def test_an_attack_that_goes_on_is_not_opened_before_it_was_ended(database: RetryingDatabase) -> None:
    """The end would end the new one otherwise."""
    async with receiving(Says(202), Says(500), Says(202)) as receiver:
        loaded = settings(route("pagerduty", receiver.url), retries=0)
        await queued(database, list(loaded.alert_routes), ONE)
        await findings.acknowledge(database, [ONE.id], now=NOW + 10, by="eve", note="")
        await outbox.queue_resolve(database, [ONE.id], loaded.alert_routes, NOW + 10)
        await outbox.queue(database, RUN, [ONE], loaded.alert_routes, (), NOW + 15, grown={ONE.id})
        assert (await Delivery()(database, loaded)).pending == 2
        assert (await Delivery()(database, loaded)).delivered == 2
        sent = [json.loads(got.body)["event_action"] for got in receiver.got]
        assert sent == ["trigger", "resolve", "resolve", "trigger"]


async def test_no_finding_is_twice_in_one_request(database: RetryingDatabase) -> None:
    """Acknowledged by somebody who died before the end was queued, and then added to."""
    async with receiving() as receiver:
        loaded = settings(route("alertmanager", receiver.url))
        await queued(database, list(loaded.alert_routes), ONE, TWO)
        await findings.acknowledge(database, [ONE.id], now=NOW + 10, by="eve", note="")
        await outbox.queue(database, RUN, [ONE], loaded.alert_routes, (), NOW + 15, grown={ONE.id})
        assert (await Delivery()(database, loaded)).delivered == 3
        assert [len(json.loads(got.body)) for got in receiver.got] == [2, 1]


async def test_a_webhook_is_told_anew_under_another_key(database: RetryingDatabase) -> None:
    """A receiver takes a key that it has seen as done."""
    async with receiving() as receiver:
        loaded = settings(route("webhook", receiver.url))
        await queued(database, list(loaded.alert_routes), ONE)
        await findings.acknowledge(database, [ONE.id], now=NOW + 10, by="eve", note="")
        await outbox.queue(database, RUN, [ONE], loaded.alert_routes, (), NOW + 15, grown={ONE.id})
        assert (await Delivery()(database, loaded)).delivered == 2
        assert [got.headers["Idempotency-Key"] for got in receiver.got] == [
            f"{ONE.id}-trigger",
            f"{ONE.id}-trigger/{NOW * 1000 + 10_000}",
        ]


async def test_what_failed_together_is_sent_in_smaller_and_smaller_requests(database: RetryingDatabase) -> None:
    """So that one alert that Alertmanager fails on does not keep the other 49 for ever, nor a fresh one at once."""
    async with receiving(Says(500)) as receiver:
        loaded = settings(route("alertmanager", receiver.url), retries=0)
        many = [finding(entity=f"number {number}") for number in range(51)]
        await findings.add(database, RUN, many, window=(NOW - 300, NOW))
        await outbox.queue(database, RUN, many[:50], loaded.alert_routes, (), NOW)
        await Delivery()(database, loaded)
        await outbox.queue(database, RUN, many[50:], loaded.alert_routes, (), NOW + 1)
        for _ in range(2):
            await Delivery()(database, loaded)
        sent = [len(json.loads(got.body)) for got in receiver.got]
        assert sent == [50, 1, 25, 25, 1, 12, 12]


async def test_a_finding_that_a_lagging_replica_does_not_have_yet_is_waited_for(database: RetryingDatabase) -> None:
    """That is no failure of the route: the others are sent. Its end waits with it."""
    async with receiving(Says(202)) as receiver:
        loaded = settings(route("pagerduty", receiver.url))
        await outbox.queue(database, RUN, [TWO, THREE, FOUR, FIVE], loaded.alert_routes, (), NOW)
        await outbox.queue_resolve(database, [TWO.id], loaded.alert_routes, NOW + 1)
        await queued(database, list(loaded.alert_routes), ONE)
        report = await Delivery()(database, loaded)
        assert report == Report(
            [
                RouteReport(
                    "pagerduty",
                    delivered=1,
                    pending=5,
                    error="the finding is not in the table",
                    hint="The alert stays pending for a day: a replica may not have the finding yet.",
                )
            ]
        )
        assert (await states(database))["pagerduty", "two", "trigger"] == (
            State.PENDING,
            1,
            "the finding is not in the table",
        )
        await findings.add(database, RunID("late"), [TWO, THREE, FOUR, FIVE], window=(0, 1))
        assert (await Delivery()(database, loaded)) == Report([RouteReport("pagerduty", delivered=5)])


class Huge:
    """A database that says how many events were read at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.events: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def query(self, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        rows = await self._database.query(sql, parameters)
        if "f.title" in sql:
            self.events.append(sum(len(row[12]) for row in rows))
        return rows


async def test_large_findings_are_read_a_few_at_a_time(database: RetryingDatabase) -> None:
    """One that is larger than the rest may be is read alone."""
    async with receiving() as receiver:
        loaded = settings(route("slack", receiver.url))
        sizes = [9_000, 9_000, 9_000, 25_000, 1, 1]
        large = [
            finding(entity=f"number {number}", events=tuple(Proof("openai", NOW, f"e{row:07}") for row in range(size)))
            for number, size in enumerate(sizes)
        ]
        await queued(database, list(loaded.alert_routes), *large)
        counting = Huge(database)
        report = await Delivery()(counting, loaded)
        assert (report.delivered, counting.events) == (6, [18_000, 9_000, 25_000, 2])
        assert [f"`{size:,}`" in got.body.decode() for size, got in zip(sizes, receiver.got, strict=True)] == [True] * 6


async def test_an_alert_without_its_finding_is_refused_after_a_day(database: RetryingDatabase) -> None:
    async with receiving() as receiver:
        loaded = settings(route("slack", receiver.url))
        await outbox.queue(database, RUN, [TWO], loaded.alert_routes, (), NOW - 24 * 3600 + 99)
        await outbox.queue(database, RUN, [THREE], loaded.alert_routes, (), NOW - 24 * 3600 + 100)
        await queued(database, list(loaded.alert_routes), ONE)
        report = await Delivery()(database, loaded)
        assert (report.delivered, report.refused, report.pending, entities(receiver.got)) == (1, 1, 1, ["one"])
        assert (await states(database))["slack", "two", "trigger"] == (
            State.REFUSED,
            1,
            "the finding is not in the table",
        )


async def test_the_end_follows_the_beginning(database: RetryingDatabase) -> None:
    """Acknowledged while the route was down: opened, then closed, in that order, each once."""
    async with receiving(*[Says(500)] * 3, Says(202)) as receiver:
        loaded = settings(route("pagerduty", receiver.url))
        await queued(database, list(loaded.alert_routes), ONE)
        assert await outbox.queue_resolve(database, [ONE.id], loaded.alert_routes, NOW + 50) == 1
        report = await Delivery()(database, loaded)
        assert (report.delivered, report.pending, len(receiver.got)) == (0, 2, 3)
        assert (await states(database))["pagerduty", "one", "resolve"] == (State.PENDING, 0, "")
        report = await Delivery()(database, loaded)
        assert (report.delivered, report.pending) == (2, 0)
        actions = [json.loads(got.body)["event_action"] for got in receiver.got]
        assert actions == ["trigger", "trigger", "trigger", "trigger", "resolve"]


async def test_alertmanager_takes_many_at_once(database: RetryingDatabase) -> None:
    """Fifty to a request, and never a finding and its end in one."""
    async with receiving() as receiver:
        loaded = settings(route("alertmanager", receiver.url))
        many = [finding(entity=f"number {number}") for number in range(120)]
        await findings.add(database, RUN, many, window=(NOW - 300, NOW))
        await outbox.queue(database, RUN, many, loaded.alert_routes, (), NOW)
        await outbox.queue_resolve(database, [one.id for one in many[:3]], loaded.alert_routes, NOW + 1)
        report = await Delivery()(database, loaded)
        assert (report.delivered, report.pending) == (123, 0)
        assert {got.path for got in receiver.got} == {"/api/v2/alerts"}
        sent = [[alert["labels"]["finding_id"] for alert in json.loads(got.body)] for got in receiver.got]
        assert max(map(len, sent)) == 50
        assert all(len(set(ids)) == len(ids) for ids in sent)
        assert sorted(one for ids in sent[:-1] for one in ids) == sorted(one.id for one in many)
        assert sorted(sent[-1]) == sorted(one.id for one in many[:3])


async def test_one_wrong_alert_of_many_is_refused_alone(database: RetryingDatabase) -> None:
    async with receiving(Says(400, b'"one is wrong"'), Says(), Says(400, b'"wrong"'), Says()) as receiver:
        loaded = settings(route("alertmanager", receiver.url))
        await queued(database, list(loaded.alert_routes), ONE, TWO, THREE)
        report = await Delivery()(database, loaded)
        assert (report.delivered, report.refused, report.pending) == (2, 1, 0)
        assert (await states(database))["alertmanager", "two", "trigger"] == (
            State.REFUSED,
            1,
            '400 Bad Request: "wrong"',
        )
        assert len(receiver.got) == 4


async def test_standard_output_has_a_line_per_alert(
    database: RetryingDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing else goes there."""
    loaded = settings(route("stdout"))
    await queued(database, list(loaded.alert_routes), ONE, TWO)
    configure_logging("json")
    capsys.readouterr()
    report = await deliver(database, loaded)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert report == Report([RouteReport("stdout", delivered=2)])
    assert [(line["alert"], line["finding"]["entity"]) for line in lines] == [("trigger", "one"), ("trigger", "two")]


async def test_a_closed_standard_output_keeps_the_alerts(database: RetryingDatabase) -> None:
    def closed(text: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    loaded = settings(route("stdout"))
    await queued(database, list(loaded.alert_routes), ONE)
    report = await Delivery()(database, loaded, write=closed)
    assert (report.delivered, report.pending) == (0, 1)
    assert str(report.errors[0]) == "alert route 'stdout' (1 pending): standard output: Broken pipe"


async def test_after_a_stop_no_request_is_begun(database: RetryingDatabase) -> None:
    """What is under way is waited for and noted."""
    stop = asyncio.Event()
    async with receiving() as receiver:
        loaded = settings(route("slack", receiver.url))
        await queued(database, list(loaded.alert_routes), ONE, TWO)
        receiver.then = stop.set
        report = await Delivery()(database, loaded, stop=stop)
        assert (report.delivered, report.pending, entities(receiver.got)) == (1, 1, ["one"])
        assert (await Delivery()(database, loaded)).delivered == 1


async def test_a_stop_ends_the_pause_before_a_retry(database: RetryingDatabase) -> None:
    """It may be minutes long; the last error is what is noted."""
    stop = asyncio.Event()
    async with receiving(Says(503)) as receiver:
        loaded = settings(route("slack", receiver.url))
        await queued(database, list(loaded.alert_routes), ONE)
        receiver.then = stop.set
        report = await Delivery()(database, loaded, stop=stop, sleep=lambda seconds: asyncio.Event().wait())
        assert (report.pending, report.routes[0].error, len(receiver.got)) == (1, "503 Service Unavailable: ok", 1)


async def test_a_receiver_that_hangs_does_not_hold_up_a_stop(
    database: RetryingDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shipper.detect.alerts.sender._GRACE", 0.0)
    stop = asyncio.Event()
    async with receiving(Says(hang=True)) as receiver:
        loaded = settings(route("slack", receiver.url))
        await queued(database, list(loaded.alert_routes), ONE)
        receiver.then = stop.set
        report = await Delivery()(database, loaded, stop=stop)
        assert (report.pending, report.routes[0].error) == (1, "stopped before an answer came")


async def test_the_report_is_plain_data() -> None:
    report = Report([RouteReport("a", 1, 2, 3, "e", "h"), RouteReport("b", delivered=4)])
    assert report.as_dict() == {
        "delivered": 5,
        "refused": 2,
        "pending": 3,
        "routes": [
            {"route": "a", "delivered": 1, "refused": 2, "pending": 3, "error": "e", "hint": "h"},
            {"route": "b", "delivered": 4, "refused": 0, "pending": 0, "error": "", "hint": ""},
        ],
    }
    assert [str(error) for error in report.errors] == ["alert route 'a' (2 refused, 3 pending): e"]
