"""Passes over a database of each kind: what is looked at, what is kept, what a failure or a crash leaves behind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from shipper.config import Settings
from shipper.detect.engine import Pass
from shipper.detect.findings import Filter, Finding, Proof, acknowledge, finding_id, read
from shipper.detect.passes import DETECTOR, Detections
from shipper.detect.rule import Rule, load, with_values
from shipper.errors import DatabaseError, Interrupted, LeaseHeld
from shipper.load.lease import Lease, Terms
from shipper.load.retry import RetryingDatabase
from shipper.model import RunID, Source, SourceID, Window, WorkspaceID, iso
from tests.conftest import database_settings
from tests.detect.events import insert_rows
from tests.detect.rules import written
from tests.rows import make_row

HOUR = 3600
DAY = 86_400

# Rows are received in the hours before the test: a pass ends at the present of the database. Three hours from START on
# are of one day, whenever the test runs: what the rule finds on two days are two findings.
_EARLIER = int(time.time()) // HOUR * HOUR - 6 * HOUR
START = min(_EARLIER, _EARLIER // DAY * DAY + 21 * HOUR)

_SQL = (
    "SELECT *, actorUserEmail AS entity, tags['note'] AS detail"
    " FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime}) WHERE eventType = 'scim.disabled'"
)


@pytest.fixture
def settings(database_url: str) -> Settings:
    return database_settings(database_url, detect_delay="0s", lease_wait="0s")


@pytest.fixture
def rule(tmp_path: Path) -> Rule:
    return written(tmp_path, "scim_off", _SQL)


def event(number: int, *, at: int, received: int = 0, who: str = "ada@corp.example", note: str = "") -> Any:
    """A row of the kind that the rule finds, received when it happened unless told otherwise."""
    return make_row(
        eventID=f"e{number}",
        id=f"r{number}",
        eventTime=at,
        receivedAt=received or at,
        eventType="scim.disabled",
        actorUserEmail=who,
        srcIP=f"192.0.2.{number}",
        resources=[f'{{"type":"scim","id":"{number}"}}'],
        tags={"note": note} if note else {},
    )


def detections(settings: Settings, database: RetryingDatabase, rules: Sequence[Rule], **values: Any) -> Detections:
    return Detections(settings, database, rules, **values)


async def watermark(database: RetryingDatabase, rule: Rule) -> int:
    rows = await database.query(
        "SELECT toUnixTimestamp(watermark) FROM openai_audit_watermarks WHERE rule = {rule:String}", {"rule": rule.id}
    )
    return int(rows[0][0]) if rows else 0


async def test_a_finding_holds_what_the_rule_returned(
    database: RetryingDatabase, settings: Settings, rule: Rule
) -> None:
    """Events of one entity in one bucket are one finding; who, where, what and the proof are theirs, each once."""
    await insert_rows(database, [event(2, at=START + 60, note="b"), event(1, at=START, note="a")])
    report = await detections(settings, database, [rule]).live()
    [found] = await read(database, Filter())
    bucket = START // 86400 * 86400
    assert found == Finding(
        workspace_id="w",
        id=finding_id("w", "scim_off", "ada@corp.example", bucket),
        rule="scim_off",
        entity="ada@corp.example",
        bucket_start=bucket,
        title=rule.title,
        severity=rule.severity,
        risk_score=70,
        tactics=("TA0003", "TA0005"),
        techniques=("T1098", "T1556.007"),
        first_seen=START,
        last_seen=START + 60,
        events=(Proof("s", START, "r1"), Proof("s", START + 60, "r2")),
        event_types=("scim.disabled",),
        actors=("ada@corp.example",),
        src_ips=("192.0.2.1", "192.0.2.2"),
        resources=('{"type":"scim","id":"1"}', '{"type":"scim","id":"2"}'),
        details=("a", "b"),
        first_detected_at=found.first_detected_at,
        last_detected_at=found.first_detected_at,
        query=rule.sql,
        parameters=found.parameters,
        run_id=report.run_id,
    )
    assert list(report.findings) == [found.id]
    assert f'"to":"{iso(report.until)}"' in found.parameters


async def test_entities_buckets_and_workspaces_are_kept_apart(
    database: RetryingDatabase, settings: Settings, rule: Rule
) -> None:
    """Another person, another day or another workspace is another finding."""
    other = make_row(
        workspaceID="w2",
        id="x",
        eventID="x",
        eventTime=START,
        receivedAt=START,
        eventType="scim.disabled",
        actorUserEmail="ada@corp.example",
    )
    rows = [
        event(1, at=START),
        event(2, at=START, who="bob@corp.example"),
        event(3, at=START - 2 * 86400, received=START),
    ]
    await insert_rows(database, [*rows, other])
    await detections(settings, database, [rule]).live()
    found = await read(database, Filter())
    assert sorted((one.workspace_id, one.entity, one.count) for one in found) == [
        ("w", "ada@corp.example", 1),
        ("w", "ada@corp.example", 1),
        ("w", "bob@corp.example", 1),
        ("w2", "ada@corp.example", 1),
    ]
    assert len({one.id for one in found}) == 4


async def test_a_pass_goes_on_where_the_last_one_ended(
    database: RetryingDatabase, settings: Settings, rule: Rule
) -> None:
    """What a pass has looked at it does not look at again; what came since is added to the same finding."""
    await insert_rows(database, [event(1, at=START)])
    first = await detections(settings, database, [rule]).live()
    assert await watermark(database, rule) == first.until
    again = await detections(settings, database, [rule]).live()
    assert (again.findings, again.until >= first.until) == ({}, True)
    later = event(2, at=START + 1, received=again.until)
    await insert_rows(database, [later])
    window = Window(again.until, again.until + 1)
    await detections(settings, database, [rule]).backtest(window, dry=False)
    [found] = await read(database, Filter())
    assert [proof.id for proof in found.events] == ["r1", "r2"]


async def test_a_repeat_changes_nothing(database: RetryingDatabase, settings: Settings, rule: Rule) -> None:
    """However often and in whatever pieces a stretch is looked at, the findings are the same."""
    await insert_rows(database, [event(number, at=START + number * 600) for number in range(12)])
    [one] = [await _findings_of(database, settings, rule, [Window(START, START + 2 * HOUR)])]
    pieces = [Window(START + start, START + start + 600) for start in range(0, 2 * HOUR, 600)]
    assert await _findings_of(database, settings, rule, pieces) == one
    assert await _findings_of(database, settings, rule, [*pieces, *pieces[::-1]]) == one
    assert len(one[0][1]) == 12


async def _findings_of(
    database: RetryingDatabase, settings: Settings, rule: Rule, windows: Sequence[Window]
) -> list[tuple[str, tuple[Proof, ...]]]:
    await database.command("TRUNCATE TABLE openai_audit_findings")
    for window in windows:
        await detections(settings, database, [rule]).backtest(window, dry=False)
    return [(one.id, one.events) for one in await read(database, Filter())]


async def test_an_outage_is_caught_up_in_bounded_windows(
    database: RetryingDatabase, settings: Settings, rule: Rule
) -> None:
    """After three hours without a pass, windows of an hour at most, one after the other and without a gap."""
    await database.command(
        f"INSERT INTO openai_audit_watermarks (rule, watermark) VALUES ('{rule.id}', toDateTime({START}))"
    )
    await insert_rows(database, [event(number, at=START + number * HOUR) for number in range(3)])
    steps = settings.model_copy(update={"detect_step": timedelta(hours=1)})
    told: list[tuple[int, int]] = []
    report = await detections(steps, database, [rule], progress=lambda done, of: told.append((done, of))).live()
    rows = await database.query(
        "SELECT toUnixTimestamp(windowStart), toUnixTimestamp(windowEnd) FROM openai_audit_detections ORDER BY 1"
    )
    assert rows == list(pairwise([*range(START, report.until, HOUR), report.until]))
    assert report.windows == -(-(report.until - START) // HOUR) == len(told)
    assert await watermark(database, rule) == report.until
    assert len(report.findings) == 1


async def test_a_rule_that_fails_stops_no_other_and_stays_where_it_is(
    database: RetryingDatabase, settings: Settings, rule: Rule, tmp_path: Path
) -> None:
    """Its error is reported and logged, its watermark stays, and the next pass looks at the same window again."""
    broken = written(tmp_path, "a_broken_rule", _SQL.replace("tags['note']", "nonsense"))
    await insert_rows(database, [event(1, at=START)])
    report = await detections(settings, database, [broken, rule]).live()
    assert list(report.failed) == ["a_broken_rule"]
    assert isinstance(report.failed["a_broken_rule"], DatabaseError)
    assert "nonsense" in str(report.errors[0])
    assert len(report.findings) == 1
    assert (await watermark(database, broken), await watermark(database, rule)) == (report.until - 86400, report.until)
    assert report.watermark == report.until - 86400
    logged = await database.query("SELECT rule, status, error != '' FROM openai_audit_detections ORDER BY rule")
    assert logged == [("a_broken_rule", "failed", True), ("scim_off", "ok", False)]
    mended = written(tmp_path, "a_broken_rule", _SQL)
    report = await detections(settings, database, [mended, rule]).live()
    assert (len(report.findings), report.watermark) == (1, report.until)


async def test_a_crash_before_the_watermark_loses_nothing(
    database: RetryingDatabase, settings: Settings, rule: Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that dies after the findings, or before them, is repeated by the next one, which changes nothing."""
    await insert_rows(database, [event(1, at=START)])

    async def dies(*_: object, **__: object) -> None:
        raise DatabaseError("the process is gone")

    for name in ("engine.add", "passes.outbox.queue", "engine.Pass.record"):
        with monkeypatch.context() as patched:
            patched.setattr(f"shipper.detect.{name}", dies)
            with pytest.raises(DatabaseError, match="the process is gone"):
                await detections(settings, database, [rule]).live()
        assert 0 < await watermark(database, rule) <= START
    report = await detections(settings, database, [rule]).live()
    [found] = await read(database, Filter())
    assert (list(report.findings), found.count) == ([found.id], 1)


async def test_the_window_ends_where_a_run_that_goes_on_began(
    database: RetryingDatabase, settings: Settings, rule: Rule
) -> None:
    """Events wait in a run before they are inserted: what it may still write is left to a later pass."""
    source = Source(WorkspaceID("w"), SourceID("s"))
    lease = Lease(database, source, RunID("running"), Terms(ttl=60, wait=0))
    await lease.acquire()
    [(began,)] = await database.query("SELECT toUnixTimestamp(min(writtenAt)) FROM openai_audit_leases")
    report = await detections(settings, database, [rule]).live()
    assert report.until <= began
    await insert_rows(database, [event(1, at=START, received=began)])
    assert (await detections(settings, database, [rule]).live()).findings == {}
    await lease.release()
    await database.command("ALTER TABLE openai_audit_leases DELETE WHERE 1 SETTINGS mutations_sync = 2")
    window = Window(report.until, began + 1)
    assert len((await detections(settings, database, [rule]).backtest(window, dry=True)).findings) == 1


async def test_one_pass_at_a_time(database: RetryingDatabase, settings: Settings, rule: Rule) -> None:
    """A second pass leaves with 75 while another goes on; a dry one looks all the same."""
    lease = Lease(database, DETECTOR, RunID("other"), Terms(ttl=60, wait=0))
    await lease.acquire()
    with pytest.raises(LeaseHeld):
        await detections(settings, database, [rule]).live()
    assert (await detections(settings, database, [rule]).dry()).windows > 0
    await lease.release()


async def test_a_dry_pass_writes_nothing(database: RetryingDatabase, settings: Settings, rule: Rule) -> None:
    """It finds what a live one would, and leaves no finding, no log and no watermark."""
    await insert_rows(database, [event(1, at=START)])
    for report in (
        await detections(settings, database, [rule]).dry(),
        await detections(settings, database, [rule]).backtest(Window(START, START + 1), dry=True),
    ):
        assert len(report.findings) == 1
    for table in ("findings", "detections", "watermarks", "alerts"):
        assert await database.query(f"SELECT count() FROM openai_audit_{table}") == [(0,)]


async def test_a_backtest_moves_no_watermark(database: RetryingDatabase, settings: Settings, rule: Rule) -> None:
    """Its findings are kept; the next live pass looks at the same events and finds the same."""
    await insert_rows(database, [event(1, at=START)])
    past = await detections(settings, database, [rule]).backtest(Window(START, START + 1), dry=False)
    assert await watermark(database, rule) == 0
    live = await detections(settings, database, [rule]).live()
    assert list(live.findings) == list(past.findings)
    assert len(await read(database, Filter())) == 1
    assert await database.query("SELECT live, count() FROM openai_audit_detections GROUP BY 1 ORDER BY 1") == [
        (False, 1),
        (True, 1),
    ]


async def test_a_stop_ends_it_between_two_windows(database: RetryingDatabase, settings: Settings, rule: Rule) -> None:
    """The windows that are done are kept; the next pass goes on behind them."""
    await insert_rows(database, [event(1, at=START)])
    await database.command(
        f"INSERT INTO openai_audit_watermarks (rule, watermark) VALUES ('{rule.id}', toDateTime({START}))"
    )
    hourly = settings.model_copy(update={"detect_step": timedelta(hours=1)})
    pass_ = detections(hourly, database, [rule])
    pass_.progress = lambda done, of: pass_.stop.set() if done == 1 else None
    with pytest.raises(Interrupted):
        await pass_.live()
    assert await watermark(database, rule) == START + HOUR
    assert len(await read(database, Filter())) == 1


async def test_parameters_are_bound_not_written(database: RetryingDatabase, settings: Settings, tmp_path: Path) -> None:
    """A value is data for ClickHouse, whatever is in it, and is kept with the finding."""
    sql = _SQL.replace("'scim.disabled'", "{kind:String} AND actorUserEmail IN {who:Array(String)}")
    toml = "".join(
        f'[parameters.{name}]\ntype = "{kind}"\ndefault = {default}\nhelp = "x"\n\n'
        for name, kind, default in (("kind", "String", '"x"'), ("who", "Array(String)", "[]"))
    )
    written(tmp_path, "with_parameters", sql)
    (tmp_path / "with_parameters.toml").write_text((tmp_path / "with_parameters.toml").read_text() + "\n" + toml)
    plain = load(tmp_path / "with_parameters.toml")
    await insert_rows(database, [event(1, at=START, who="o'hara@corp.example"), event(2, at=START)])
    window = Window(START, START + 1)
    assert (await detections(settings, database, [plain]).backtest(window, dry=True)).findings == {}
    rule = with_values(plain, {"kind": "scim.disabled", "who": ["o'hara@corp.example", "') OR 1 --"]})
    [found] = (await detections(settings, database, [rule]).backtest(window, dry=True)).findings.values()
    assert (found.entity, found.count) == ("o'hara@corp.example", 1)
    assert '"who":["o\'hara@corp.example","\') OR 1 --"]' in found.parameters


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM (SELECT 1)); DROP TABLE openai_audit_logs; SELECT (1",
        "SELECT number FROM system.numbers",
        "SELECT arrayJoin(range(1000000000)) AS n",
    ],
)
async def test_a_rule_can_do_no_harm(database: RetryingDatabase, settings: Settings, tmp_path: Path, sql: str) -> None:
    """Statements that write, that never end or that take all memory fail, within the limits, and nothing is gone."""
    await insert_rows(database, [event(1, at=START)])
    bad = written(tmp_path, "bad_rule", sql)
    small = settings.model_copy(update={"detect_memory": 64 * 1024 * 1024, "detect_timeout": timedelta(seconds=1)})
    report = await detections(small, database, [bad]).backtest(Window(START, START + 1), dry=True)
    assert list(report.failed) == ["bad_rule"]
    assert await database.query("SELECT count() FROM openai_audit_logs") == [(1,)]


# Eight megabytes for each event, all different.
_HEAVY = _SQL.replace("tags['note']", "concat(id, arrayStringConcat(arrayMap(n -> repeat('x', 1000000), range(8))))")


async def test_a_window_that_is_too_much_for_one_query_is_halved(
    database: RetryingDatabase, settings: Settings, tmp_path: Path
) -> None:
    """A rule whose query takes too much memory over an hour gets there over pieces of it, and finds all the same."""
    heavy = written(tmp_path, "heavy_rule", _HEAVY)
    await insert_rows(database, [event(number, at=START + number * 300) for number in range(12)])
    small = settings.model_copy(update={"detect_memory": 80_000_000})
    window = Window(START, START + HOUR)
    [outcome] = await Pass(database, small, RunID("r")).look([heavy], window)
    assert (outcome.too_much, outcome.error, outcome.findings) == (True, None, ())
    report = await detections(small, database, [heavy]).backtest(window, dry=False)
    assert report.failed == {}
    [found] = await read(database, Filter())
    assert [proof.id for proof in found.events] == [f"r{number}" for number in range(12)]


async def test_what_is_too_much_for_any_query_is_reported_and_stepped_over(
    database: RetryingDatabase, settings: Settings, tmp_path: Path
) -> None:
    """A flood within a minute ends no rule for good: that minute is logged as failed, and the next pass goes on."""
    heavy = written(tmp_path, "heavy_rule", _HEAVY)
    await insert_rows(database, [event(number, at=START) for number in range(12)])
    await insert_rows(database, [event(20, at=START + HOUR)])
    await database.command(
        f"INSERT INTO openai_audit_watermarks (rule, watermark) VALUES ('{heavy.id}', toDateTime({START}))"
    )
    small = settings.model_copy(update={"detect_memory": 80_000_000})
    first = await detections(small, database, [heavy]).live()
    assert list(first.failed) == ["heavy_rule"]
    assert START < await watermark(database, heavy) <= START + 120
    second = await detections(small, database, [heavy]).live()
    assert (second.failed, await watermark(database, heavy)) == ({}, second.until)
    assert [proof.id for one in await read(database, Filter()) for proof in one.events] == ["r20"]
    assert await database.query("SELECT count() FROM openai_audit_detections WHERE status = 'failed'") == [(1,)]


async def test_a_new_rule_that_fails_at_first_skips_nothing(
    database: RetryingDatabase, settings: Settings, rule: Rule, tmp_path: Path
) -> None:
    """Its first window begins where it was first to look, however long it takes until it can."""
    broken = written(tmp_path, "new_rule", "SELECT nonsense")
    first = await detections(settings, database, [broken, rule]).live()
    began = first.until - 86400
    assert list(first.failed) == ["new_rule"]
    assert await watermark(database, broken) == began


async def test_a_finding_keeps_the_first_of_very_many_events(
    database: RetryingDatabase, settings: Settings, rule: Rule
) -> None:
    """A flood makes no finding that nothing can hold: of more than 10,000 events the first are kept."""
    await database.command(
        "INSERT INTO openai_audit_logs (workspaceID, sourceID, id, eventID, eventTime, receivedAt, eventType, srcIP)"
        f" SELECT 'w', 's', leftPad(toString(number), 6, '0'), toString(number), toDateTime({START}),"
        f" toDateTime({START}), 'scim.disabled', IPv4NumToString(toUInt32(number)) FROM numbers(12000)"
    )
    await detections(settings, database, [rule]).backtest(Window(START, START + 1), dry=False)
    [found] = await read(database, Filter())
    assert [proof.id for proof in found.events] == [f"{number:06}" for number in range(10_000)]
    assert len(found.src_ips) == 1000


async def test_a_backtest_over_what_is_known_opens_nothing_again(
    database: RetryingDatabase, settings: Settings, rule: Rule
) -> None:
    """Looking again adds nothing: an acknowledged finding stays acknowledged, also while a live pass goes on."""
    await insert_rows(database, [event(1, at=START)])
    window = Window(START, START + 1)
    [one] = (await detections(settings, database, [rule]).backtest(window, dry=False)).findings
    await acknowledge(database, [one], now=time.time(), by="ada", note="")
    lease = Lease(database, DETECTOR, RunID("other"), Terms(ttl=60, wait=0))
    await lease.acquire()
    assert list((await detections(settings, database, [rule]).backtest(window, dry=False)).findings) == [one]
    await lease.release()
    assert await read(database, Filter(acknowledged=False)) == []


async def test_only_the_lease_of_the_detections_is_left_out_of_the_horizon(
    database: RetryingDatabase, settings: Settings, rule: Rule
) -> None:
    """A source may be called `detections` too: what it may still write is waited for."""
    lease = Lease(database, Source(WorkspaceID("w"), SourceID("detections")), RunID("running"), Terms(ttl=60, wait=0))
    await lease.acquire()
    [(began,)] = await database.query("SELECT toUnixTimestamp(min(writtenAt)) FROM openai_audit_leases")
    other = settings.model_copy(update={"clickhouse_url": "http://localhost:1"})
    assert (await detections(other, database, [rule]).dry()).until <= began
    await lease.release()


async def test_an_acknowledged_finding_is_open_again_when_it_is_added_to(
    database: RetryingDatabase, settings: Settings, rule: Rule
) -> None:
    """Acknowledged, it is listed with the others only; an event that comes later opens it again."""
    await insert_rows(database, [event(1, at=START)])
    [one] = (await detections(settings, database, [rule]).backtest(Window(START, START + 1), dry=False)).findings
    await acknowledge(database, [one], now=time.time(), by="ada", note="a test")
    assert await read(database, Filter(acknowledged=False)) == []
    [seen] = await read(database, Filter())
    assert (seen.acknowledged_by, seen.note) == ("ada", "a test")
    await insert_rows(database, [event(2, at=START + 1)])
    await detections(settings, database, [rule]).backtest(Window(START + 1, START + 2), dry=False)
    [again] = await read(database, Filter(acknowledged=False))
    assert again.count == 2
