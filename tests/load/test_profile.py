"""The profile of a user, and the defaults of a server, change no answer: what one cannot give whole is an error."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from shipper.errors import DatabaseError, DatabaseUnavailable
from shipper.load import answers, dead_letters, runs, schema, server
from shipper.load.clickhouse import Database, connect
from shipper.load.dead_letters import Filter, Letter
from shipper.load.ledger import Ledger
from shipper.load.status import source_status, sources
from shipper.model import Lane, RunID, Source, SourceID, Window, WorkspaceID
from shipper.telemetry import RunReport, Status
from tests.clickhouse_server import running_server, skip_where_there_is_no_way
from tests.conftest import database_settings
from tests.load.rows import NOON, OTHER, SOURCE, batch_of, counted, dead_letter, delivery, give, row, rows, writer
from tests.rowbinary import insert_rows, inserts_ended

HOSTILE: dict[str, dict[str, str]] = {
    "nulls": {"join_use_nulls": "1"},
    "limit": {"limit": "1"},
    "nothing": {"aggregate_functions_null_for_empty": "1", "empty_result_for_aggregation_by_empty_set": "1"},
    "positions": {"enable_positional_arguments": "0"},
    "old": {"compatibility": "21.8"},
    "joins": {"any_join_distinct_right_table_keys": "1", "join_default_strictness": "ANY", "transform_null_in": "1"},
    "names": {"prefer_column_name_to_alias": "1", "union_default_mode": "DISTINCT", "cast_keep_nullable": "1"},
    "final": {"optimize_move_to_prewhere_if_final": "1", "do_not_merge_across_partitions_select_final": "1"},
    "indexes": {"use_skip_indexes_if_final": "1", "use_skip_indexes_if_final_exact_mode": "0"},
    "zone": {"session_timezone": "America/New_York"},
    "broken": {"input_format_connection_handling": "1"},
    "twice": {"deduplicate_insert": "disable", "insert_deduplicate": "0"},
    "pieces": {
        "input_format_max_block_size_bytes": "1000",
        "max_insert_block_size": "10",
        "max_insert_block_size_bytes": "1000",
        "min_insert_block_size_bytes": "1",
        "min_insert_block_size_rows": "1",
        "use_strict_insert_block_limits": "1",
    },
}

# Limits at which a part of an answer would pass for the whole: what the profile says, and what would go over it.
SHORT: dict[str, dict[str, str]] = {
    "time": {"max_execution_time": "0.000001", "timeout_overflow_mode": "break"},
    "result": {"max_result_rows": "1", "result_overflow_mode": "break"},
    "join": {"max_rows_in_join": "1", "join_overflow_mode": "break"},
    "distinct": {"max_rows_in_distinct": "1", "distinct_overflow_mode": "break"},
}

# TIMEOUT_EXCEEDED, SET_SIZE_LIMIT_EXCEEDED, TOO_MANY_ROWS_OR_BYTES
_TIMEOUT = 159
_LIMITS = {_TIMEOUT, 191, 396}

_USER = (
    "<{name}><password></password><networks><ip>::/0</ip></networks><profile>{name}</profile>"
    "<quota>default</quota></{name}>"
)


def users_file(profiles: Mapping[str, Mapping[str, str]]) -> str:
    """A user for each profile, of the same name."""
    written = "".join(
        f"<{name}>{''.join(f'<{key}>{value}</{key}>' for key, value in settings.items())}</{name}>"
        for name, settings in profiles.items()
    )
    users = "".join(_USER.format(name=name) for name in profiles)
    return f"<clickhouse><profiles>{written}</profiles><quotas><default/></quotas><users>{users}</users></clickhouse>"


@pytest.fixture(scope="module")
def many_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The host and port of a server with a user for each profile."""
    skip_where_there_is_no_way()
    folder = tmp_path_factory.mktemp("profiles")
    # Nobody could even connect in so little time.
    short = {**SHORT, "time": {"timeout_overflow_mode": "break"}}
    (folder / "users.xml").write_text(users_file({"default": {}, **HOSTILE, **short}))
    (folder / "config.xml").write_text(f"<clickhouse><users_config>{folder / 'users.xml'}</users_config></clickhouse>")
    (folder / "data").mkdir()
    with running_server(folder / "data", "--config-file", str(folder / "config.xml")) as url:
        yield url.removeprefix("http://")


@pytest.fixture(params=["server", "embedded"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def plain(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A connection without a profile of its own, to a database in which every question has more than one answer."""
    if kind == "server":
        host = request.getfixturevalue("many_users")
        bare = await connect(database_settings(f"http://default@{host}"))
        await bare.command("DROP DATABASE IF EXISTS profiled SYNC")
        await bare.command("CREATE DATABASE profiled")
        await bare.close()
        url = f"http://default@{host}/profiled"
    else:
        url = f"chdb:{tmp_path / 'data'}"
    database = await connect(database_settings(url))
    await schema.apply(database)
    await fill(database)
    yield database
    await database.close()


Changed = Callable[[str], Awaitable[Database]]


@pytest.fixture
async def as_user(kind: str, plain: Database, request: pytest.FixtureRequest) -> AsyncIterator[Changed]:
    """The same database as a user of a profile. The embedded engine has no users: its session takes the settings."""
    opened: list[Database] = []

    async def connected(name: str) -> Database:
        settings = {**HOSTILE, **SHORT}[name]
        if kind == "embedded":
            await plain.command("SET " + ", ".join(f"{key} = '{value}'" for key, value in settings.items()))
            return plain
        host = request.getfixturevalue("many_users")
        target = server.parse(database_settings(f"http://{name}@{host}/profiled"))
        database = await server.connect(target)
        opened.append(database)
        if name == "time":
            database._client.set_client_setting("max_execution_time", settings["max_execution_time"])
        return database

    yield connected
    for database in opened:
        await database.close()


async def fill(database: Database) -> None:
    """Rows and letters of two sources, twice over and not merged; letters open, resolved and open again; a ledger."""
    for table in ("logs", "dead_letters", "dead_letters_resolved"):
        await database.command(f"SYSTEM STOP MERGES openai_audit_{table}")
    for run in ("run-1", "run-2"):
        batch = writer(database, run, force=True)
        for number in range(3):
            window = delivery(Window(NOON + number * 100, NOON + number * 100 + (100 if number else 50)))
            letters = [dead_letter(b"a%d" % number), dead_letter(b"b%d" % number)]
            give(batch, window, rows(number * 4, number * 4 + 1, number * 4 + 2), letters)
            batch.drained(window, NOON + 4000)
        await batch.flush()
        batch = writer(database, run, force=True)
        give(batch, delivery(source=OTHER), [row(1, source=OTHER)], [dead_letter(b"a0", source=OTHER)])
        await batch.flush()
    resolved = [Letter.of(dead_letter(raw)).id for raw in (b"a0", b"a1", b"b0")]
    await dead_letters.resolve(database, RunID("run-3"), SOURCE, resolved, NOON + 9000)
    again = [(SOURCE, Letter.of(dead_letter(b"b0")))]
    assert await dead_letters.insert_letters(
        database, RunID("run-4"), again, await dead_letters.look(database, again)
    ) == [True]
    statuses: list[Status] = ["ok", "stopped"]
    for number, status in enumerate(statuses):
        report = RunReport(RunID(f"run-{number}"), "run", started=NOON + number, finished=NOON + number + 1.0)
        for lane in (Lane.ORGANIZATION, Lane.TENANT):
            report.lane(SOURCE, lane).status = status
        await runs.record(database, report)


def questions(database: Database) -> dict[str, Callable[[], Awaitable[Any]]]:
    """What the product asks, by name."""
    ledger, nobody = Ledger(database, SOURCE), Source(WorkspaceID("w"), SourceID("nobody"))
    letters = [(SOURCE, Letter.of(dead_letter(raw))) for raw in (b"a0", b"a2", b"b0", b"new")]
    return {
        "migrations": lambda: schema.pending(database),
        "sources": lambda: sources(database),
        "status": lambda: source_status(database, SOURCE),
        "status of nobody": lambda: source_status(database, nobody),
        "open": lambda: dead_letters.entries(database, Filter()),
        "every": lambda: dead_letters.entries(database, Filter(resolved=True)),
        "how many open": lambda: dead_letters.count(database, Filter()),
        "how many": lambda: dead_letters.count(database, Filter(resolved=True)),
        "bytes": lambda: dead_letters.read(database, SOURCE, [letter.id for _, letter in letters]),
        "known": lambda: dead_letters._known(database, letters),
        "resolved": lambda: dead_letters._resolved(database, letters),
        "there": lambda: writer(database)._present(batch_of(rows(*range(12)))),
        "covered": lambda: ledger.covered(Lane.ORGANIZATION),
        "settled": lambda: ledger.covered(Lane.ORGANIZATION, settled_after=10),
        "drained": lambda: ledger.covered(Lane.ORGANIZATION, drained_since=NOON),
        "last": lambda: runs.last_status(database, SOURCE, Lane.ORGANIZATION),
        "silent": lambda: runs.silent_so_far(database, SOURCE, told_since=0),
        "nobody silent": lambda: runs.silent_so_far(database, nobody, told_since=0),
    }


async def everything(database: Database) -> dict[str, Any]:
    return {name: await ask() for name, ask in questions(database).items()}


async def test_what_is_read_here_is_worth_comparing(plain: Database) -> None:
    """Open and resolved letters, windows that touch and windows apart, rows there and rows not."""
    found = await everything(plain)
    assert (found["how many open"], found["how many"]) == (5, 7)
    assert [len(found[name]) for name in ("known", "resolved", "there", "sources")] == [3, 1, 9, 2]
    assert found["covered"] == [Window(NOON, NOON + 50), Window(NOON + 100, NOON + 300)]
    assert (found["silent"], found["nobody silent"]) == (False, True)


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_profile_changes_no_answer(name: str, plain: Database, as_user: Changed) -> None:
    """Every question of the product is answered as without the profile. What is written next is counted as it is:
    three rows are new; of the letters one is open again, and one is new.
    """
    expected = await everything(plain)
    database = await as_user(name)
    assert await everything(database) == expected
    batch, window = writer(database, "run-5"), delivery()
    give(batch, window, rows(*range(12)), [dead_letter(raw) for raw in (b"a0", b"a2", b"new")])
    await batch.flush()
    assert counted(window) == (3, 10, 2)
    assert await dead_letters.count(database, Filter(source_id="s")) == 6


@pytest.mark.parametrize("name", ["twice", "pieces"])
async def test_a_batch_is_one_part_of_the_table_and_its_repetition_none(
    name: str, plain: Database, as_user: Changed
) -> None:
    """Nobody sees half of it, and one whose answer was lost can be sent again."""
    parts = "SELECT count(), sum(rows) FROM system.parts WHERE active AND table = {t:String} AND database = {d:String}"
    [(home,)] = await plain.query("SELECT currentDatabase()")
    of = {"t": "openai_audit_logs", "d": home}
    [(before, rows_before)] = await plain.query(parts, of)
    database = await as_user(name)
    for _ in range(2):
        await insert_rows(database, rows(*range(100, 400)), token="again")
        assert await plain.query(parts, of) == [(before + 1, rows_before + 300)]


@pytest.mark.parametrize("name", SHORT)
async def test_a_part_of_an_answer_is_an_error(name: str, plain: Database, as_user: Changed) -> None:
    """A profile that says to stop quietly at a limit: each question gets the whole answer or the error of the limit."""
    expected = await everything(plain)
    database = await as_user(name)
    refused = []
    for question, ask in questions(database).items():
        try:
            assert await ask() == expected[question], question
        except DatabaseError as error:
            assert error.code in _LIMITS, question  # noqa: PT017 - either is right, and one of them is
            refused.append(question)
    assert refused


async def test_an_insert_that_takes_too_long_is_not_acknowledged(plain: Database, as_user: Changed) -> None:
    """The same profile would have a server say "done" without a row written."""
    before = await plain.query("SELECT count() FROM openai_audit_logs")
    database = await as_user("time")
    with pytest.raises(DatabaseUnavailable) as caught:
        await insert_rows(database, rows(100, 101), token="late")
    assert caught.value.code == _TIMEOUT
    await database.command("SET max_execution_time = 0")
    assert await plain.query("SELECT count() FROM openai_audit_logs") == before


@pytest.mark.parametrize("kind", ["server"])
async def test_an_insert_that_breaks_off_leaves_nothing(
    plain: Database, as_user: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the profile "broken" a server would keep the rows that came by then."""
    before = await plain.query("SELECT count() FROM openai_audit_logs")
    database = await as_user("broken")

    def breaking(body: Sequence[bytes]) -> Iterator[bytes]:
        yield from body[: len(body) // 2]
        raise OSError("broken")

    monkeypatch.setattr(server, "chunks", breaking)
    with pytest.raises(DatabaseUnavailable):
        # So much that the server has begun to read it when it breaks off.
        await insert_rows(database, [row(number, rawLog=b"x" * 400_000) for number in range(100, 200)], token="broken")
    await inserts_ended(plain)
    assert await plain.query("SELECT count() FROM openai_audit_logs") == before


async def test_an_index_hides_no_later_copy(plain: Database, as_user: Changed) -> None:
    """With the profile "indexes" an event that came again would also be found when it came first. Not so by what the
    product asks, nor by what a person does.
    """
    insert = "INSERT INTO openai_audit_logs (workspaceID, sourceID, eventID, eventTime, receivedAt) VALUES"
    for received in (NOON, NOON + 9000):
        await plain.command(f"{insert} ('w', 'twice', 'one', {NOON}, {received})")
    earlier = f"SELECT eventID FROM openai_audit_logs WHERE sourceID = 'twice' AND receivedAt = {NOON}"
    database = await as_user("indexes")
    mistaken = f"{earlier} SETTINGS use_skip_indexes_if_final_exact_mode = 0"
    assert await database.query(mistaken) == [("one",)]
    assert await database.query(earlier) == []
    assert await database.query_table(earlier) == (["eventID"], [])
    assert json.loads(await database.query_json(earlier)) == []


async def test_a_setting_that_the_database_does_not_know_is_not_sent(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a server of an older version. One that is sent all the same is an error."""
    monkeypatch.setitem(answers.NEWER, "use_of_the_future", "1")
    database = await connect(database_settings(database_url))
    assert await database.query("SELECT 1") == [(1,)]
    assert await database.query_table("SELECT 1 AS one") == (["one"], [("1",)])
    await database.close()
    monkeypatch.setitem(answers.READ, "use_of_the_future", "1")
    with pytest.raises(DatabaseError):
        await _asked(database_url)


async def _asked(url: str) -> None:
    """Connect, which asks a server something, and ask."""
    database = await connect(database_settings(url))
    try:
        await database.query("SELECT 1")
    finally:
        await database.close()
