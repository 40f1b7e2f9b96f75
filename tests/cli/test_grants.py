"""deploy/clickhouse/grants.sql: each role can do its whole work, and nothing else.

The server of the tests stores no users, so that CREATE ROLE cannot be run on it. The statements are checked by its
parser and turned into its users file word for word: what the SQL grants is what is tested.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shipper.load.migrations import migrations
from tests.cli.conftest import Result, Shipper
from tests.clickhouse_server import running_server, skip_where_there_is_no_way

SQL = Path(__file__).parent.parent.parent / "deploy" / "clickhouse" / "grants.sql"
ROLES = ("writer", "reader", "migrator")

# What a server's own configuration file switches on.
_STRICT = """
<access_control_improvements>
  <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
  <select_from_information_schema_requires_grant>true</select_from_information_schema_requires_grant>
  <table_engines_require_grant>true</table_engines_require_grant>
</access_control_improvements>
"""

DENIED = "497"


def statements() -> list[str]:
    text = "\n".join(line for line in SQL.read_text(encoding="utf-8").splitlines() if not line.startswith("--"))
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def roles(text: list[str]) -> dict[str, list[str]]:
    """Each role with its grants, in the form of a users file: without TO."""
    found: dict[str, list[str]] = {}
    for statement in text:
        if made := re.fullmatch(r"CREATE ROLE IF NOT EXISTS (\w+)", statement):
            found[made[1]] = []
        else:
            granted = re.fullmatch(r"(GRANT .+) TO (\w+)", statement)
            assert granted is not None, statement
            found[granted[2]].append(granted[1])
    return found


def users_file(grants: dict[str, list[str]]) -> str:
    def user(name: str, queries: list[str]) -> str:
        inner = "".join(f"<query>{query}</query>" for query in queries)
        given = f"<grants>{inner}</grants>" if queries else ""
        return (
            f"<{name}><password></password><networks><ip>::/0</ip></networks><profile>default</profile>"
            f"<quota>default</quota>{given}</{name}>"
        )

    named = "".join(
        f"<{role}><grants>{''.join(f'<query>{query}</query>' for query in queries)}</grants></{role}>"
        for role, queries in grants.items()
    )
    users = user("default", []) + "".join(user(name, [f"GRANT shipper_{name}"]) for name in ROLES)
    return (
        "<clickhouse><profiles><default/></profiles><quotas><default/></quotas>"
        f"<users>{users}</users><roles>{named}</roles></clickhouse>"
    )


@dataclass(frozen=True)
class Access:
    """A server with the three users, a database `security` and another one that is none of their business."""

    url: str

    def of(self, user: str) -> str:
        return self.url.replace("://", f"://{user}@") + "/security"

    def ask(self, user: str, sql: str) -> str:
        """What the server says: the result, or the number of its error."""
        headers = {"X-ClickHouse-User": user}
        request = urllib.request.Request(self.url, data=sql.encode(), headers=headers)  # noqa: S310 - our own server
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the same
                text: str = answer.read().decode().strip()
                return text
        except urllib.error.HTTPError as error:
            return str(error.headers["X-ClickHouse-Exception-Code"])


@contextmanager
def serving(folder: Path, grants: list[str]) -> Iterator[Access]:
    """A server whose users have what these statements grant."""
    skip_where_there_is_no_way()
    (folder / "users.xml").write_text(users_file(roles(grants)))
    (folder / "config.xml").write_text(
        f"<clickhouse><users_config>{folder / 'users.xml'}</users_config>{_STRICT}</clickhouse>"
    )
    (folder / "data").mkdir()
    with running_server(folder / "data", "--config-file", str(folder / "config.xml")) as url:
        server = Access(url)
        for sql in (
            "CREATE DATABASE security",
            "CREATE DATABASE payroll",
            "CREATE TABLE payroll.salaries (amount UInt32) ENGINE = MergeTree ORDER BY amount",
        ):
            assert server.ask("default", sql) == ""
        yield server


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    with serving(tmp_path_factory.mktemp("grants"), statements()) as server:
        yield server


As = Callable[..., Result]


@pytest.fixture
def as_user(shipper: Shipper, access: Access, organization: dict[str, str]) -> As:
    """Run a command as a user: `as_user("writer", "run", "--json")`. Migrations are left to the migrator."""

    def run(user: str, *arguments: str, **more: str) -> Result:
        environment = {
            "SHIPPER_CLICKHOUSE_URL": access.of(user),
            "SHIPPER_AUTO_MIGRATE": "false",
            "SHIPPER_REQUESTS_PER_SECOND": "100",
            "SHIPPER_LOOKBACK": "1d",
        }
        return shipper(*arguments, **{**organization, **environment, **more})

    return run


@pytest.fixture
def migrated(as_user: As) -> None:
    """The schema, as the migrator makes it."""
    assert as_user("migrator", "schema", "apply").code == 0


def test_the_server_understands_every_statement(access: Access) -> None:
    """Also what stands in the comments as an example."""
    text = SQL.read_text(encoding="utf-8")
    examples = [line.removeprefix("--   ").rstrip(";") for line in text.splitlines() if line.startswith("--   ")]
    assert len(examples) == 4
    for statement in (*statements(), *(example.replace("…", "x") for example in examples)):
        quoted = statement.replace("\\", "\\\\").replace("'", "\\'")
        assert access.ask("default", f"SELECT formatQuerySingleLine('{quoted}')"), statement


def test_the_server_is_as_strict_as_one_with_its_own_configuration(access: Access) -> None:
    """Otherwise the tests below would prove little."""
    assert access.ask("writer", "SELECT count() FROM system.parts") == DENIED
    assert access.ask("migrator", "CREATE TABLE security.x (a UInt8) ENGINE = Log") == DENIED
    assert access.ask("default", "SELECT count() FROM system.parts").isdigit()


def test_the_migrator_makes_the_schema(as_user: As, access: Access) -> None:
    """All of it, and a second time nothing."""
    first = as_user("migrator", "schema", "apply")
    assert (first.code, first.err) == (0, "")
    again = as_user("migrator", "schema", "apply")
    assert again.out == "nothing to apply: the schema is up to date\n"
    applied = access.ask("default", "SELECT name FROM security.openai_audit_migrations ORDER BY version")
    assert applied.split() == [migration.name for migration in migrations()]


@pytest.mark.usefixtures("migrated")
def test_the_writer_does_its_whole_work(as_user: As) -> None:
    """Run, run again, backfill, replay with a dead letter, look at it, send it again, status, check, query."""
    run = json.loads(as_user("writer", "run", "--json").out)
    assert {lane["status"] for lane in run["lanes"]} == {"ok"}
    assert sum(lane["inserted"] for lane in run["lanes"]) > 0
    again = json.loads(as_user("writer", "run", "--json").out)
    assert sum(lane["inserted"] for lane in again["lanes"]) == 0
    for more in ([], ["--resweep"], ["--force"]):
        assert as_user("writer", "backfill", "--since", "2d", *more).code == 0
    Path("archive.ndjson").write_text('{"id": "e-1", "type": "x", "effective_at": 1700000000}\n{"type": "no id"}\n')
    (archive,) = json.loads(as_user("writer", "replay", "archive.ndjson", "--json").out)["lanes"]
    assert (archive["inserted"], archive["dead_lettered"]) == (1, 1)
    (letter,) = json.loads(as_user("writer", "dead-letters", "list", "--json").out)
    assert as_user("writer", "dead-letters", "show", letter["id"]).out == '{"type": "no id"}'
    assert as_user("writer", "dead-letters", "replay", letter["id"]).code == 0
    lanes = json.loads(as_user("writer", "status", "--json").out)["lanes"]
    assert {lane["lane"] for lane in lanes} == {"organization", "tenant", "archive"}
    checked = as_user("writer", "check")
    assert (checked.code, "FAIL" in checked.out) == (0, False)
    counted = json.loads(as_user("writer", "query", "--json", "SELECT count() AS n FROM openai_audit_logs").out)
    assert int(counted[0]["n"]) > 1


@pytest.mark.usefixtures("migrated")
def test_the_writer_detects_and_the_reader_sees_it(as_user: As) -> None:
    """Every rule runs with the writer's rights, and findings are acknowledged; the reader lists them."""
    Path("archive.ndjson").write_text('{"id": "e-scim", "type": "scim.disabled", "effective_at": 1700000000}\n')
    assert as_user("writer", "replay", "archive.ndjson").code == 0
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}"
    found = as_user("writer", "detect", "--from", "1d", "--to", tomorrow, "--json")
    assert (found.code, json.loads(found.out)["failed"]) == (0, {})
    assert as_user("writer", "detect").code == 0
    ids = json.loads(found.out)["findings"]
    listed = json.loads(as_user("reader", "findings", "list", "--json").out)
    assert {"defence_scim_disabled"} <= {one["rule"] for one in listed if one["id"] in ids}
    assert as_user("reader", "detect", "--dry-run").code == 0
    assert as_user("reader", "findings", "ack", ids[0]).code == 77
    assert as_user("writer", "findings", "ack", ids[0]).code == 0


EVENTS = "security.openai_audit_logs"

CHANGES = {
    "update": f"ALTER TABLE {EVENTS} UPDATE actorUserEmail = '' WHERE 1",
    "delete": f"ALTER TABLE {EVENTS} DELETE WHERE 1",
    "lightweight delete": f"DELETE FROM {EVENTS} WHERE 1",
    "add a column": f"ALTER TABLE {EVENTS} ADD COLUMN x UInt8",
    "drop a column": f"ALTER TABLE {EVENTS} DROP COLUMN rawLog",
    "shorten the retention": f"ALTER TABLE {EVENTS} MODIFY TTL receivedAt + toIntervalDay(1)",
    "change a setting": f"ALTER TABLE {EVENTS} MODIFY SETTING non_replicated_deduplication_window = 0",
    "drop a partition": f"ALTER TABLE {EVENTS} DROP PARTITION tuple()",
    "freeze": f"ALTER TABLE {EVENTS} FREEZE",
    "truncate": f"TRUNCATE TABLE {EVENTS}",
    "truncate the ledger": "TRUNCATE TABLE security.openai_audit_coverage",
    "drop": f"DROP TABLE {EVENTS}",
    "detach": f"DETACH TABLE {EVENTS}",
    "rename": f"RENAME TABLE {EVENTS} TO security.gone",
    "exchange": f"EXCHANGE TABLES {EVENTS} AND security.openai_audit_runs",
    "optimize": f"OPTIMIZE TABLE {EVENTS} FINAL DEDUPLICATE BY rawLog",
    "drop the database": "DROP DATABASE security",
    "stop merges": f"SYSTEM STOP MERGES {EVENTS}",
}
ELSEWHERE = {
    "read another database": "SELECT * FROM payroll.salaries",
    "write another database": "INSERT INTO payroll.salaries VALUES (1)",
    "make a database": "CREATE DATABASE mine",
    "make a view": f"CREATE VIEW security.v AS SELECT * FROM {EVENTS}",
    "make a dictionary": "CREATE DICTIONARY security.d (a UInt64) PRIMARY KEY a SOURCE(NULL()) LAYOUT(FLAT())"
    " LIFETIME(0)",
    "read a file": "SELECT * FROM file('users.xml', 'LineAsString')",
    "send to a url": "INSERT INTO FUNCTION url('http://127.0.0.1:1/', 'CSV', 'a String') SELECT 'x'",
    "read from a url": "SELECT * FROM url('http://127.0.0.1:1/', 'CSV', 'a String')",
    "read from another server": "SELECT * FROM remote('127.0.0.1:1', 'system', 'one')",
    "make a user": "CREATE USER mallory",
    "grant": "GRANT SELECT ON payroll.* TO writer",
    "see users": "SELECT * FROM system.users",
    "see others' queries": "SELECT * FROM system.processes",
    "drop caches": "SYSTEM DROP MARK CACHE",
    "shut down": "SYSTEM SHUTDOWN",
}


@pytest.mark.usefixtures("migrated")
@pytest.mark.parametrize("what", [*CHANGES, *ELSEWHERE, "create a table"])
def test_what_the_writer_cannot_do(access: Access, what: str) -> None:
    """What is written stays as it was written, and nothing else is in reach."""
    sql = {**CHANGES, **ELSEWHERE, "create a table": "CREATE TABLE security.x (a UInt8) ENGINE = MergeTree ORDER BY a"}
    assert access.ask("writer", sql[what]) == DENIED


@pytest.mark.usefixtures("migrated")
@pytest.mark.parametrize("what", [*CHANGES, *ELSEWHERE, "insert", "create a table"])
def test_what_the_reader_cannot_do(access: Access, what: str) -> None:
    """It reads, and that is all."""
    more = {
        "insert": f"INSERT INTO {EVENTS} (id) VALUES ('x')",
        "create a table": "CREATE TABLE security.x (a UInt8) ENGINE = MergeTree ORDER BY a",
    }
    assert access.ask("reader", {**CHANGES, **ELSEWHERE, **more}[what]) == DENIED


@pytest.mark.usefixtures("migrated")
@pytest.mark.parametrize("what", [*CHANGES, *ELSEWHERE, "insert", "read events", "read dead letters"])
def test_what_the_migrator_cannot_do(access: Access, what: str) -> None:
    """It makes tables and never sees an event."""
    more = {
        "insert": f"INSERT INTO {EVENTS} (id) VALUES ('x')",
        "read events": f"SELECT * FROM {EVENTS}",
        "read dead letters": "SELECT * FROM security.openai_audit_dead_letters",
    }
    assert access.ask("migrator", {**CHANGES, **ELSEWHERE, **more}[what]) == DENIED


@pytest.mark.usefixtures("migrated")
def test_the_reader_reads(as_user: As) -> None:
    """Status, query and the list of dead letters work; a run is refused before anything is read from the API."""
    assert as_user("writer", "run").code == 0
    assert as_user("reader", "status").code == 0
    assert as_user("reader", "dead-letters", "list").code == 0
    counted = json.loads(as_user("reader", "query", "--json", "SELECT count() AS n FROM openai_audit_logs").out)
    assert int(counted[0]["n"]) > 0
    refused = as_user("reader", "run", SHIPPER_SOURCE_ID="another")
    assert refused.code == 77
    assert "A run needs SELECT, INSERT" in refused.err


@pytest.mark.usefixtures("migrated")
def test_what_the_grants_do_not_prevent(access: Access) -> None:
    """SECURITY.md says so: who has the writer's password can put a row in another one's place."""
    key = "'security', 'grants', toDateTime(1763726400), 'e-1'"
    for raw in ("true", "false"):
        sql = f"INSERT INTO {EVENTS} (workspaceID, sourceID, eventTime, eventID, rawLog) VALUES ({key}, '{raw}')"
        assert access.ask("writer", sql) == ""
    assert access.ask("reader", f"SELECT rawLog FROM {EVENTS} FINAL WHERE sourceID = 'grants'") == "false"


def test_before_the_schema_is_there_and_with_a_grant_too_many(
    shipper: Shipper, organization: dict[str, str], tmp_path: Path
) -> None:
    """The writer says what it lacks. And the denials above come from the SQL: one line more, and one is gone."""
    with serving(tmp_path, [*statements(), "GRANT TRUNCATE ON security.* TO shipper_writer"]) as server:
        environment = {**organization, "SHIPPER_CLICKHOUSE_URL": server.of("writer")}
        forbidden = shipper("run", **environment)
        assert (forbidden.code, "CREATE TABLE, CREATE VIEW and TABLE ENGINE" in forbidden.err) == (77, True)
        missing = shipper("run", **environment, SHIPPER_AUTO_MIGRATE="false")
        assert (missing.code, "`shipper schema apply` with a user that may create" in missing.err) == (78, True)
        server.ask("default", f"CREATE TABLE {EVENTS} (rawLog String) ENGINE = MergeTree ORDER BY rawLog")
        assert server.ask("writer", CHANGES["truncate"]) == ""
        assert server.ask("writer", CHANGES["drop"]) == DENIED
