"""Dead letters from end to end: a poisoned page is narrowed down, and what was a letter can become a row later."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import shipper.pipeline
from shipper.dead_letters import list_letters, replay_letters, show_letter
from shipper.enrich import open_enricher
from shipper.errors import ExitCode, SchemaError, UsageError
from shipper.load.dead_letters import Filter
from shipper.load.ledger import Ledger
from shipper.load.migrations import migrations
from shipper.load.retry import RetryingDatabase
from shipper.load.status import source_status
from shipper.model import DeadLetter, Lane, Place, RawEvent, Row, Window
from shipper.normalize import normalize
from shipper.run import Run
from shipper.simulator import Organization, Simulator
from shipper.status import read_status
from tests.organizations import DAY, NOW, ship_settings, shipped, truth

AT = NOW - 1_000
TIMELESS = b'{"object":"organization.audit_log","id":"audit_log-timeless","type":"user.added"}'


@pytest.fixture(scope="module")
def organization() -> Organization:
    return Organization.build(seed=11, now=NOW, days=2, events_per_day=30)


@pytest.fixture
async def simulator(organization: Organization) -> AsyncIterator[Simulator]:
    async with Simulator(organization, clock=lambda: NOW) as running:
        yield running


def new_run(database: RetryingDatabase, url: str, simulator: Simulator, **values: Any) -> Run:
    settings = ship_settings(url, simulator, **{"lookback": "2d", **values})
    return Run(settings, database, open_enricher(settings), "run", clock=lambda: NOW)


async def ship(database: RetryingDatabase, url: str, simulator: Simulator, **values: Any) -> Run:
    run = new_run(database, url, simulator, **values)
    await run.read_sources()
    return run


async def replay(database: RetryingDatabase, url: str, simulator: Simulator, ids: list[str], **chosen: Any) -> Run:
    run = new_run(database, url, simulator)
    await replay_letters(run, ids, Filter(**chosen))
    return run


async def letters(database: RetryingDatabase) -> dict[bytes, str]:
    """Bytes and reason of every dead letter in the plain table. Fails when one is there twice."""
    rows = await database.query("SELECT hex(raw), reason FROM openai_audit_dead_letters SETTINGS final = 0")
    assert len({raw for raw, _ in rows}) == len(rows)
    return {bytes.fromhex(raw): reason for raw, reason in rows}


def event(name: str, **values: Any) -> bytes:
    body = {"object": "organization.audit_log", "id": f"audit_log-{name}", "type": "user.added", "effective_at": AT}
    return json.dumps(body | values).encode()


def understood_later(monkeypatch: pytest.MonkeyPatch, *ids: str) -> Callable[[], None]:
    """An older version, which makes dead letters of these events. Returns the upgrade."""

    def older(raw: RawEvent) -> Row | DeadLetter:
        result = normalize(raw)
        if isinstance(result, Row) and result.event_id in ids:
            return DeadLetter(raw, "no-event-time", "this version cannot read it")
        return result

    monkeypatch.setattr(shipper.pipeline, "normalize", older)
    return lambda: monkeypatch.setattr(shipper.pipeline, "normalize", normalize)


async def test_a_poisoned_page_is_narrowed_down_to_what_poisons_it(
    database: RetryingDatabase, database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in one page: what can be read is a row with its bytes as they were, the rest are letters with theirs.

    The window is covered, the sum closes, and a second run neither doubles nor forgets any of it.
    """
    nested = b"[" * 2_000 + b"]" * 2_000
    readable = {
        "surrogate": event("surrogate", note="\ud800"),
        "nested": event("nested", deep=0).replace(b'"deep": 0', b'"deep": ' + nested),
        "utf8": event("utf8", note="N").replace(b'"N"', b'"\xff\xfe"'),
        "plain": event("plain"),
    }
    hopeless = {
        "timeless": (TIMELESS, "no-event-time"),
        "garbage": (b'{"id": "audit_log-garbage", "effective_at": nonsense}', "not-json"),
        "number": (b"42", "not-an-object"),
        "nameless": (event("x").replace(b'"audit_log-x"', b'"\\ud800"'), "no-event-id"),
        "unwritable": (event("unwritable"), "unwritable"),
    }
    for name, raw in [*readable.items(), *((name, raw) for name, (raw, _) in hopeless.items())]:
        simulator.add_raw(raw, id=f"audit_log-{name}", effective_at=AT)

    def poisonous(raw: RawEvent) -> Row | DeadLetter:
        result = normalize(raw)
        if isinstance(result, Row) and result.event_id == "audit_log-unwritable":
            result.place = Place(as_number=2**40)
        return result

    monkeypatch.setattr(shipper.pipeline, "normalize", poisonous)
    run = await ship(database, database_url, simulator)
    assert (run.errors, run.exit_code) == ([], ExitCode.OK)
    table = await shipped(database)
    dead = {f"audit_log-{name}" for name in hopeless}
    assert table == {one: raw for one, raw in truth(simulator).items() if one not in dead}
    for name, raw in readable.items():
        assert table[f"audit_log-{name}"] == raw
    assert await letters(database) == dict(hopeless.values())
    assert run.report.total("received") == len(table) + len(hopeless) == run.report.total("accounted")
    source = run.settings.all_sources()[0].source
    assert await Ledger(database, source).covered(Lane.ORGANIZATION) == [Window(NOW - 2 * DAY, NOW)]
    again = await ship(database, database_url, simulator)
    assert again.errors == []
    assert again.report.total("received") == again.report.total("already_there") > len(hopeless)
    assert await letters(database) == dict(hopeless.values())


async def test_letters_that_become_rows_are_resolved_and_the_others_stay(
    database: RetryingDatabase, database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an upgrade: rows for those that are understood now, nothing lost of any, and the numbers say which."""
    understood = {name: event(name) for name in ("one", "two")}
    simulator.add_raw(TIMELESS, id="audit_log-timeless", effective_at=AT)
    for name, raw in understood.items():
        simulator.add_raw(raw, id=f"audit_log-{name}", effective_at=AT)
    upgrade = understood_later(monkeypatch, "audit_log-one", "audit_log-two")
    await ship(database, database_url, simulator)
    before = await letters(database)
    assert set(before) == {TIMELESS, *understood.values()}
    rows_before = len(await shipped(database))
    source = new_run(database, database_url, simulator).settings.all_sources()[0].source
    settings = ship_settings(database_url, simulator)

    upgrade()
    run = await replay(database, database_url, simulator, [])
    assert (run.errors, run.report.resolved) == ([], 2)
    [lane] = run.report.lanes
    assert (lane.lane, lane.received, lane.inserted, lane.already_there, lane.dead_lettered) == (
        Lane.ORGANIZATION,
        *(3, 2, 1, 0),
    )
    table = await shipped(database)
    assert len(table) == rows_before + 2
    assert all(table[f"audit_log-{name}"] == raw for name, raw in understood.items())
    assert await database.query(
        "SELECT DISTINCT tags['lane'] FROM openai_audit_logs WHERE eventID = 'audit_log-one'"
    ) == [("organization",)]
    assert await letters(database) == before

    assert (await source_status(database, source)).lanes[0].dead_letters == 1
    open_ones = await list_letters(settings, Filter(), 10)
    assert [(one.reason, one.size, one.resolved_at) for one in open_ones.entries] == [
        ("no-event-time", len(TIMELESS), 0)
    ]
    every = await list_letters(settings, Filter(resolved=True), 10)
    assert (every.total, sorted(one.resolved_at for one in every.entries)) == (3, [0, NOW, NOW])

    again = await replay(database, database_url, simulator, [])
    assert (again.report.total("received"), again.report.resolved) == (1, 0)
    assert await shipped(database) == table


async def test_a_letter_whose_event_is_a_row_already_is_resolved(
    database: RetryingDatabase, database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API gave it again after the upgrade: the replay adds no second row."""
    raw = event("one")
    simulator.add_raw(raw, id="audit_log-one", effective_at=AT)
    upgrade = understood_later(monkeypatch, "audit_log-one")
    await ship(database, database_url, simulator)
    upgrade()
    await ship(database, database_url, simulator)
    run = await replay(database, database_url, simulator, [])
    assert (run.report.total("already_there"), run.report.total("inserted"), run.report.resolved) == (1, 0, 1)
    assert await shipped(database) == truth(simulator)


async def test_a_letter_is_resolved_by_the_id_of_its_event_whatever_its_bytes(
    database: RetryingDatabase, database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table has the event with other bytes: they stay, the letter keeps its own, and it is resolved. That is what
    "resolved" says, and no more.
    """
    simulator.add_raw(event("one", note="then"), id="audit_log-one", effective_at=AT)
    upgrade = understood_later(monkeypatch, "audit_log-one")
    await ship(database, database_url, simulator)
    upgrade()
    other = event("one", note="now")
    [source] = new_run(database, database_url, simulator).settings.all_sources()
    await database.command(
        "INSERT INTO openai_audit_logs (workspaceID, sourceID, eventTime, eventID, rawLog)"
        f" VALUES ('{source.workspace}', '{source.id}', toDateTime({AT}), 'audit_log-one', '{other.decode()}')"
    )
    run = await replay(database, database_url, simulator, [])
    assert (run.report.total("already_there"), run.report.total("inserted"), run.report.resolved) == (1, 0, 1)
    assert (await shipped(database))["audit_log-one"] == other
    assert list(await letters(database)) == [event("one", note="then")]
    assert (await list_letters(ship_settings(database_url, simulator), Filter(), 10)).total == 0


async def test_a_letter_that_still_cannot_be_written_stays(
    database: RetryingDatabase, database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is understood, and yet the table does not take it: that is no row."""
    simulator.add_raw(event("one"), id="audit_log-one", effective_at=AT)

    def poisonous(raw: RawEvent) -> Row | DeadLetter:
        result = normalize(raw)
        if isinstance(result, Row) and result.event_id == "audit_log-one":
            result.place = Place(as_number=2**40)
        return result

    monkeypatch.setattr(shipper.pipeline, "normalize", poisonous)
    await ship(database, database_url, simulator)
    run = await replay(database, database_url, simulator, [])
    assert (run.errors, run.report.total("already_there"), run.report.resolved) == ([], 1, 0)
    assert "audit_log-one" not in await shipped(database)
    monkeypatch.setattr(shipper.pipeline, "normalize", normalize)
    run = await replay(database, database_url, simulator, [])
    assert (run.report.total("inserted"), run.report.resolved) == (1, 1)


async def test_a_resolved_letter_that_comes_again_is_open_again(
    database: RetryingDatabase, database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row was deleted and its bytes still cannot be a row: it counts as dead-lettered, it is listed, and a replay
    resolves it once more. All within one second of the clock, which decides nothing here.
    """
    raw = event("one")
    simulator.add_raw(raw, id="audit_log-one", effective_at=AT)
    upgrade = understood_later(monkeypatch, "audit_log-one")
    await ship(database, database_url, simulator)
    settings = ship_settings(database_url, simulator)
    source = settings.all_sources()[0].source
    for round_ in range(2):
        upgrade()
        assert (await replay(database, database_url, simulator, [])).report.resolved == 1
        assert (await list_letters(settings, Filter(), 10)).total == 0
        await database.command("DELETE FROM openai_audit_logs WHERE eventID = 'audit_log-one'")

        understood_later(monkeypatch, "audit_log-one")
        run = await ship(database, database_url, simulator)
        assert (run.errors, run.report.total("dead_lettered"), run.report.total("inserted")) == ([], 1, 0), round_
        for _ in range(2):
            again = await ship(database, database_url, simulator)
            assert (again.errors, again.report.total("dead_lettered")) == ([], 0)
        listing = await list_letters(settings, Filter(), 10)
        assert (listing.total, [one.resolved_at for one in listing.entries]) == (1, [0])
        assert (await list_letters(settings, Filter(resolved=True), 10)).total == 1
        assert (await source_status(database, source)).lanes[0].dead_letters == 1
        failed = await replay(database, database_url, simulator, [])
        assert (failed.report.resolved, failed.report.total("already_there")) == (0, 1)
    upgrade()
    assert (await replay(database, database_url, simulator, [])).report.resolved == 1
    assert (await shipped(database))["audit_log-one"] == raw


async def test_many_letters_are_replayed_piece_by_piece(
    database: RetryingDatabase, database_url: str, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than are held in memory at once: all become rows, each once."""
    monkeypatch.setattr("shipper.run._LETTERS_AT_ONCE", 7)
    names = [f"audit_log-{number}" for number in range(30)]
    for number in range(30):
        simulator.add_raw(event(str(number)), id=f"audit_log-{number}", effective_at=AT)
    upgrade = understood_later(monkeypatch, *names)
    await ship(database, database_url, simulator)
    upgrade()
    run = await replay(database, database_url, simulator, [])
    assert (run.report.resolved, run.report.total("inserted")) == (30, 30)
    assert await shipped(database) == truth(simulator)


async def test_letters_are_chosen_by_id_source_and_reason(
    database: RetryingDatabase, database_url: str, simulator: Simulator
) -> None:
    """An id or its beginning, the newest first, no more than asked for; an id that names none or two is an error."""
    simulator.add_raw(TIMELESS, id="audit_log-timeless", effective_at=AT)
    simulator.add_raw(b"42", id="audit_log-number", effective_at=AT)
    await ship(database, database_url, simulator)
    settings = ship_settings(database_url, simulator)
    listing = await list_letters(settings, Filter(), 1)
    assert (len(listing.entries), listing.total) == (1, 2)
    assert (await list_letters(settings, Filter(source_id="nobody"), 10)).entries == []
    [number] = (await list_letters(settings, Filter(reason="not-an-object"), 10)).entries
    assert (number.size, number.lane, number.source.source_id, number.received_at) == (
        *(2, Lane.ORGANIZATION, "source-1", NOW),
    )
    shown = await show_letter(settings, Filter(id=number.id[:6]))
    assert (shown.raw, shown.entries) == (b"42", [number])
    run = await replay(database, database_url, simulator, [number.id], source_id="source-1")
    assert run.report.total("received") == 1
    none = await replay(database, database_url, simulator, [], source_id="nobody")
    assert (none.report.lanes, none.errors) == ([], [])
    for wrong, message in (("nothing", "is not the id of a dead letter"), ("0" * 64, "no dead letter has an id")):
        with pytest.raises(UsageError, match=message):
            await show_letter(settings, Filter(id=wrong))
    with pytest.raises(UsageError, match="no dead letter that is not resolved"):
        await replay(database, database_url, simulator, ["0" * 64])


async def test_an_id_that_several_letters_begin_with_is_refused(database: RetryingDatabase, database_url: str) -> None:
    await database.command(
        "INSERT INTO openai_audit_dead_letters (workspaceID, sourceID, lane, id, raw) VALUES"
        " ('w', 's', 'tenant', 'aaaaaa01', 'x'), ('w', 's', 'tenant', 'aaaaaa02', 'y'),"
        " ('w', 't', 'tenant', 'aaaaaa02', 'y')"
    )
    settings = ship_settings(database_url)
    with pytest.raises(UsageError, match="2 dead letters have an id that begins with aaaaaa0"):
        await show_letter(settings, Filter(id="aaaaaa0"))
    shown = await show_letter(settings, Filter(id="aaaaaa02"))
    assert (shown.raw, [entry.source.source_id for entry in shown.entries]) == (b"y", ["s", "t"])


async def test_letters_of_a_source_that_is_no_longer_configured_can_be_replayed(
    database: RetryingDatabase, database_url: str, simulator: Simulator
) -> None:
    """Its rows are kept for ever; those of a configured one for as long as its retention says."""
    for source in ("source-1", "gone"):
        await database.command(
            "INSERT INTO openai_audit_dead_letters (workspaceID, sourceID, lane, id, raw) VALUES"
            f" ('default', '{source}', 'organization', repeat('a', 64), '{event('one').decode()}')"
        )
    settings = ship_settings(database_url, simulator)
    kept = settings.all_sources()[0].model_copy(update={"retention_days": 9_000})
    run = Run(
        settings.model_copy(update={"sources": (kept,)}), database, open_enricher(settings), "x", clock=lambda: NOW
    )
    await replay_letters(run, [], Filter())
    assert (run.errors, run.report.resolved) == ([], 2)
    rows = await database.query("SELECT sourceID, sourceTTL FROM openai_audit_logs ORDER BY sourceID")
    assert rows == [("gone", 0), ("source-1", 9_000)]


async def test_a_database_without_tables_has_no_letters(bare_database: RetryingDatabase, database_url: str) -> None:
    """An empty list, and an error for who asks for one letter."""
    settings = ship_settings(database_url)
    listing = await list_letters(settings, Filter(), 10)
    assert (listing.entries, listing.total) == ([], 0)
    with pytest.raises(SchemaError, match=f"lacks {len(migrations())} migrations"):
        await show_letter(settings, Filter(id="a" * 64))
    assert await bare_database.query("SELECT count() FROM system.tables WHERE database = currentDatabase()") == [(0,)]


async def test_a_database_that_lacks_a_table_is_no_empty_one(database: RetryingDatabase, database_url: str) -> None:
    """What was shipped by an older version is not "nothing": the error says what to do."""
    await database.command("DELETE FROM openai_audit_migrations WHERE version = 6")
    settings = ship_settings(database_url)
    for ask in (list_letters(settings, Filter(), 10), read_status(settings)):
        with pytest.raises(SchemaError, match="lacks 1 migrations, first 0006") as caught:
            await ask
        assert "shipper schema apply" in caught.value.hint
