"""Every command as a person calls it: what it prints, and its exit code."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import orjson
import pytest
import yaml

from shipper.demo import QUERIES
from shipper.load.clickhouse import connect
from tests.cli.conftest import KEY, Shipper
from tests.conftest import database_settings
from tests.rows import COLUMNS

NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture
def shipped(shipper: Shipper, organization: dict[str, str]) -> Shipper:
    """A folder into which one run has shipped."""
    result = shipper("run", **organization, SHIPPER_LOOKBACK="4d")
    assert (result.code, result.err.count("error:")) == (0, 0)
    return shipper


def test_without_arguments_it_explains_itself(shipper: Shipper) -> None:
    result = shipper()
    assert result.code == 0
    for command in ("demo", "check", "run", "watch", "backfill", "replay", "status", "query", "simulate", "schema"):
        assert f"  {command} " in result.out


def test_version(shipper: Shipper) -> None:
    assert shipper("--version").out == "shipper 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["nope"], "No such command 'nope'.", "`shipper --help` explains it."),
        (["run", "--nope"], "No such option", "`shipper run --help` explains it."),
        (["backfill"], "Missing option '--since'", "`shipper backfill --help` explains it."),
        (["schema"], "Missing command.", "`shipper schema --help` explains it."),
        (["backfill", "--since", "soon"], "expected a date, a time or a duration", ""),
        (["backfill", "--since", "1d", "--until", "2d"], "nothing lies between", "--since must be before"),
        (["backfill", "--since", "1d", "--source", "x"], "no source is called 'x'", "Configured: openai"),
        (["watch", "--interval", "0s"], "--interval must be at least 1s", ""),
        (["watch", "--interval", "often"], "--interval: expected a duration", ""),
        (["simulate", "--misbehave", "erors=1"], "unknown misbehaviour 'erors'", "Did you mean 'errors'?"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_64_with_a_hint(shipper: Shipper, arguments: list[str], message: str, hint: str) -> None:
    result = shipper(*arguments)
    assert result.code == 64
    assert message in result.err
    assert hint in result.err
    assert "Traceback" not in result.err


def test_a_wrong_setting_is_78_with_a_hint(shipper: Shipper) -> None:
    result = shipper("run", SHIPPER_BATCH_ROW="1")
    assert (result.code, result.out) == (78, "")
    assert result.err == (
        "error: unknown setting SHIPPER_BATCH_ROW in the environment\nhint:  Did you mean 'SHIPPER_BATCH_ROWS'?\n"
    )


def test_a_run_without_a_key_is_78_and_says_where_one_comes_from(shipper: Shipper) -> None:
    result = shipper("run")
    assert result.code == 78
    assert "no admin key for source 'openai'" in result.err
    assert "OPENAI_ADMIN_KEY_FILE" in result.err
    assert "Nothing to read" not in result.out


def test_a_refused_key_is_77_and_is_not_shown(shipper: Shipper, organization: dict[str, str]) -> None:
    result = shipper("run", **{**organization, "OPENAI_ADMIN_KEY": "sk-proj-" + KEY})
    assert result.code == 77
    assert "admin key" in result.err
    assert "api.audit_logs.read" in result.err
    assert KEY not in result.err + result.out


def test_an_api_out_of_reach_is_69(shipper: Shipper) -> None:
    result = shipper("run", OPENAI_ADMIN_KEY=KEY, OPENAI_BASE_URL=NOWHERE, SHIPPER_RETRIES="0")
    assert result.code == 69
    assert "hint:" in result.err


def test_clickhouse_out_of_reach_is_69(shipper: Shipper, organization: dict[str, str]) -> None:
    result = shipper("run", **organization, SHIPPER_CLICKHOUSE_URL="http://127.0.0.1:9/x", SHIPPER_RETRIES="0")
    assert result.code == 69
    assert "127.0.0.1:9" in result.err


def test_a_run_prints_the_report_and_its_sum(shipper: Shipper, organization: dict[str, str]) -> None:
    result = shipper("run", **organization, SHIPPER_LOOKBACK="4d")
    assert result.code == 0
    for heading in ("received", "inserted", "already there", "dead-lettered", "pages", "retries", "windows", "lag"):
        assert heading in result.out
    total = result.out.splitlines()[-1]
    assert total.startswith("received ")
    assert total.endswith("already there 0 + dead-lettered 0")
    log = [json.loads(line) for line in result.err.splitlines()]
    assert [line["event"] for line in log].count("run finished") == 1


def test_a_second_run_says_that_all_of_it_was_there(shipped: Shipper, organization: dict[str, str]) -> None:
    result = shipped("run", "--json", **organization, SHIPPER_LOOKBACK="4d")
    report = orjson.loads(result.out)
    lanes = {lane["lane"]: lane for lane in report["lanes"]}
    assert set(lanes) == {"organization", "tenant"}
    assert all(lane["inserted"] == 0 and lane["balanced"] for lane in lanes.values())


def test_a_backfill_of_what_is_covered_reads_nothing(shipped: Shipper, organization: dict[str, str]) -> None:
    result = shipped("backfill", "--since", "3d", "--until", "1d", **organization)
    assert result.code == 0
    assert "Nothing to read: the ledger has all of it. --resweep reads it again." in result.out
    again = shipped("backfill", "--since", "3d", "--until", "1d", "--resweep", "--json", **organization)
    lane = orjson.loads(again.out)["lanes"][0]
    assert lane["received"] == lane["already_there"] > 0


def test_replay_reads_files_and_standard_input(
    shipper: Shipper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, the same events again from standard input: once in the table. No key is needed."""
    raw = b'{"id":"a1","type":"login.succeeded","effective_at":1753089116}\n{"id":"a2"}\n'
    (tmp_path / "events.ndjson").write_bytes(raw)
    first = orjson.loads(shipper("replay", "events.ndjson", "--json").out)["lanes"][0]
    assert (first["lane"], first["received"], first["inserted"], first["dead_lettered"]) == ("archive", 2, 1, 1)
    with (tmp_path / "events.ndjson").open("rb") as stream:
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"buffer": stream, "isatty": lambda _: False})())
        second = orjson.loads(shipper("replay", "-", "--json").out)["lanes"][0]
    assert (second["received"], second["inserted"], second["already_there"]) == (2, 0, 2)
    rows = orjson.loads(shipper("query", "SELECT eventID, rawLog FROM openai_audit_logs", "--json").out)
    assert rows == [{"eventID": "a1", "rawLog": raw.splitlines()[0].decode()}]


def test_an_event_as_live_organizations_have_it_lands_with_every_column_right(shipper: Shipper, tmp_path: Path) -> None:
    """No payload, an alpha-3 country, an empty ASN, an address that is none of a client's, a broken e-mail address."""
    details = {"country": "USA", "city": "Dallas", "region": "Texas", "region_code": "TX", "asn": ""}
    session = {
        "user": {"id": "user-1", "email": "Some Body@example.com"},
        "ip_address": "0.0.0.0",  # noqa: S104 - as seen in live data
        "user_agent": "Mozilla/5.0",
        "ja3": "3a",
        "ja4": "4a",
        "ip_address_details": {**details, "latitude": "32.7767", "longitude": "-96.7970"},
    }
    raw = orjson.dumps(
        {
            "object": "organization.audit_log",
            "id": "audit_log-1",
            "type": "login.succeeded",
            "effective_at": 1753089116,
            "actor": {"type": "session", "session": session},
        }
    )
    (tmp_path / "one.ndjson").write_bytes(raw)
    assert shipper("replay", "one.ndjson").code == 0
    (row,) = orjson.loads(shipper("query", "SELECT * FROM openai_audit_logs", "--json").out)
    assert list(row) == list(COLUMNS)
    del row["receivedAt"], row["id"]
    assert {name: value for name, value in row.items() if value not in ("", 0, [], {}, False)} == {
        "workspaceID": "default",
        "sourceID": "openai",
        "sourceType": "openai",
        "eventTime": "2025-07-21 09:11:56",
        "eventName": "login.succeeded",
        "eventID": "audit_log-1",
        "srcIP": "0.0.0.0",  # noqa: S104
        "srcASCountryCode": "US",
        "srcCity": "Dallas",
        "srcLatitude": 32.7767,
        "srcLongitude": -96.797,
        "actor": {"id": "user-1", "type": "user"},
        "tags": {
            "lane": "organization",
            "category": "authentication",
            "region": "Texas",
            "regionCode": "TX",
            "userAgent": "Mozilla/5.0",
            "ja3": "3a",
            "ja4": "4a",
            "invalidValue": "actor.session.user.email",
            "srcIPReserved": "unspecified",
        },
        "serviceName": "openai",
        "readOnly": True,
        "rawLog": raw.decode(),
        "eventType": "login.succeeded",
        "actorType": "session",
        "actorIP": "0.0.0.0",  # noqa: S104
        "actorUserID": "user-1",
        "actorUserEmail": "Some Body@example.com",
    }


def test_replay_of_an_empty_file_says_that_it_is_empty(shipper: Shipper, tmp_path: Path) -> None:
    (tmp_path / "empty.ndjson").touch()
    result = shipper("replay", "empty.ndjson")
    assert result.code == 0
    assert result.out.endswith("The archive holds no events.\n")


def test_replay_of_what_is_no_archive_is_65(shipper: Shipper, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<html>")
    for name in ("page.html", "missing.ndjson"):
        result = shipper("replay", name)
        assert result.code == 65
        assert name in result.err


def test_replay_with_several_sources_asks_whose_events_they_are(shipper: Shipper, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("sources: [{id: a}, {id: b}]")
    (tmp_path / "e.ndjson").write_text('{"id":"a1","type":"login.failed","effective_at":1753089116}')
    assert shipper("-c", "c.yaml", "replay", "e.ndjson").code == 64
    assert shipper("-c", "c.yaml", "replay", "e.ndjson", "--source", "b").code == 0
    rows = orjson.loads(shipper("query", "SELECT sourceID FROM openai_audit_logs", "--json").out)
    assert rows == [{"sourceID": "b"}]


@pytest.mark.parametrize("command", [["status"], ["check"], ["query", "SELECT 1"]], ids=" ".join)
def test_a_command_that_only_looks_makes_no_database(shipper: Shipper, tmp_path: Path, command: list[str]) -> None:
    result = shipper(*command)
    assert "Traceback" not in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_query_before_the_first_run_says_what_makes_a_database(shipper: Shipper) -> None:
    result = shipper("query", "SELECT 1")
    assert result.code == 78
    assert "no database there yet" in result.err
    assert "`shipper run` makes it" in result.err


def test_status_of_an_empty_database_says_what_to_do(shipper: Shipper) -> None:
    result = shipper("status")
    assert (result.code, result.out) == (
        0,
        "Nothing has been shipped yet. `shipper run` starts; `shipper demo` shows what it looks like.\n",
    )


def test_status_shows_each_lane(shipped: Shipper) -> None:
    result = shipped("status")
    assert result.code == 0
    assert "organization" in result.out
    lanes = {lane["lane"]: lane for lane in orjson.loads(shipped("status", "--json").out)["lanes"]}
    assert set(lanes) == {"organization", "tenant"}
    for lane in lanes.values():
        assert lane["rows"] > 0
        assert lane["gaps"] == []
        assert len(lane["covered"]) == 1
        assert lane["last_run"]["status"] == "ok"


def test_status_names_a_gap(shipper: Shipper, organization: dict[str, str]) -> None:
    for since, until in (("3d", "2d"), ("1d", "12h")):
        assert shipper("backfill", "--since", since, "--until", until, **organization).code == 0
    result = shipper("status")
    assert "gap: openai/organization [" in result.out
    assert "the next `shipper run` reads it" in result.out


def test_query_prints_a_table_or_one_json_array(shipped: Shipper) -> None:
    sql = "SELECT eventType, count() AS events FROM openai_audit_logs GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 2"
    table = shipped("query", sql)
    assert "eventType" in table.out
    assert table.out.endswith("2 rows\n")
    rows = orjson.loads(shipped("query", sql, "--json").out)
    assert [list(row) for row in rows] == [["eventType", "events"]] * 2
    assert orjson.loads(shipped("query", "SELECT 1 AS one WHERE 0", "--json").out) == []
    assert shipped("query", "SELECT 1 AS one;").out.endswith("1 row\n")


@pytest.mark.parametrize("sql", ["SELECT * FROM nowhere", "SELEC 1", "DROP TABLE openai_audit_logs", ""])
def test_a_query_that_fails_is_an_error_and_changes_nothing(shipped: Shipper, sql: str) -> None:
    result = shipped("query", sql)
    assert result.code != 0
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err
    assert orjson.loads(shipped("query", "SELECT count() > 0 AS kept FROM openai_audit_logs", "--json").out) == [
        {"kept": 1}
    ]


def test_check_says_ok_line_by_line(shipped: Shipper, organization: dict[str, str]) -> None:
    result = shipped("check", **organization)
    assert result.code == 0
    subjects = [line[6:].split(":")[0] for line in result.out.splitlines() if line.startswith("ok")]
    assert subjects == ["enrichment", "ClickHouse", "schema", "source openai", "source openai, tenant lane"]


def test_check_names_each_fault_and_its_fix(shipper: Shipper, organization: dict[str, str], tmp_path: Path) -> None:
    """A missing key, a refused key, a missing database file, a server out of reach: reason, fix, exit code."""
    missing = shipper("check")
    assert missing.code == 78
    assert "FAIL  source openai: no admin key" in missing.out
    assert "ok    ClickHouse: " in missing.out
    refused = shipper("check", "--json", **{**organization, "OPENAI_ADMIN_KEY": "sk-proj-x"})
    assert refused.code == 77
    answers = {answer["subject"]: answer for answer in orjson.loads(refused.out)}
    assert answers["source openai"]["ok"] is False
    assert "api.audit_logs.read" in answers["source openai"]["fix"]
    geoip = shipper("check", **organization, SHIPPER_GEOIP_DATABASES="missing.mmdb")
    assert geoip.code == 78
    assert "missing.mmdb" in geoip.out
    gone = shipper("check", **organization, SHIPPER_CLICKHOUSE_URL="http://127.0.0.1:9", SHIPPER_RETRIES="0")
    assert gone.code == 69
    assert "FAIL  ClickHouse: " in gone.out
    (tmp_path / "empty").mkdir()
    behind = shipper("check", **organization, SHIPPER_AUTO_MIGRATE="false", SHIPPER_CLICKHOUSE_URL="chdb:empty")
    assert behind.code == 78
    assert "migrations are missing" in behind.out


def test_check_sees_a_schema_that_was_changed_by_hand(shipped: Shipper, organization: dict[str, str]) -> None:
    async def change() -> None:
        database = await connect(database_settings("chdb:shipper-data"))
        await database.command("ALTER TABLE openai_audit_logs COMMENT COLUMN srcIP 'something else'")
        await database.close()

    asyncio.run(change())
    result = shipped("check", **organization)
    assert result.code == 78
    assert "FAIL  schema: " in result.out
    diff = shipped("schema", "diff")
    assert diff.code == 78
    assert "srcIP" in diff.out


def test_schema_commands(shipper: Shipper) -> None:
    first = shipper("schema", "apply")
    assert first.code == 0
    assert "applied 0001" in first.out
    assert shipper("schema", "apply").out == "nothing to apply: the schema is up to date\n"
    assert shipper("schema", "diff").out == "no differences\n"
    assert "CREATE TABLE IF NOT EXISTS openai_audit_logs" in shipper("schema", "show").out


def test_config_show_hides_secrets(shipper: Shipper) -> None:
    result = shipper("config", "show", OPENAI_ADMIN_KEY=KEY, SHIPPER_CLICKHOUSE_PASSWORD="hunter2")
    settings = yaml.safe_load(result.out)
    assert settings["admin_key"] == settings["clickhouse_password"] == "<SECRET>"
    assert KEY not in result.out
    assert "hunter2" not in result.out


def test_demo_shows_what_arrived_and_the_second_time_finds_nothing_new(shipper: Shipper) -> None:
    first = shipper("demo")
    assert first.code == 0
    for heading in ("Events by day", "Top actors", "Countries", "received", "Three queries to try:"):
        assert heading in first.out
    assert "Nothing new" not in first.out
    second = shipper("demo")
    assert second.code == 0
    assert "events were read again, and each was already there." in second.out


def test_the_demo_ends_with_what_is_planted_and_nothing_else_of_high_severity(shipper: Shipper) -> None:
    """Each incident of the simulated month is found; a second demo finds the same and adds nothing."""
    planted = {
        "signin_brute_force_success",
        "defence_ip_allowlist_off",
        "credential_key_before_removal",
        "privilege_owner_granted",
    }
    known: list[object] = []
    for _ in range(2):
        shown = shipper("demo").out
        found = orjson.loads(
            shipper("findings", "list", "--json", "--all", SHIPPER_CLICKHOUSE_URL="chdb:shipper-demo").out
        )
        assert {one["rule"] for one in found if one["severity"] in {"high", "critical"}} == planted
        assert "signin_new_country" in {one["rule"] for one in found}
        assert all(one["title"] in shown for one in found if one["rule"] in planted | {"signin_new_country"})
        assert known in ([], sorted(one["id"] for one in found))
        known = sorted(one["id"] for one in found)


def test_demo_obeys_nothing_of_the_environment(shipper: Shipper) -> None:
    """A proxy, an organization and a schema policy of the real thing do not reach it."""
    result = shipper(
        "demo",
        SHIPPER_PROXY="http://127.0.0.1:9",
        OPENAI_ORG_ID="org-other",
        SHIPPER_AUTO_MIGRATE="false",
        SHIPPER_OVERLAP="2h",
    )
    assert result.code == 0, result.err
    assert "Three queries to try:" in result.out


def test_the_queries_that_the_demo_suggests_find_something(shipper: Shipper) -> None:
    assert shipper("demo").code == 0
    for _, sql in QUERIES:
        rows = orjson.loads(shipper("query", sql, "--json", SHIPPER_CLICKHOUSE_URL="chdb:shipper-demo").out)
        assert rows, sql
