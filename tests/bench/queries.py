"""Queries shaped like detections, over a large table: `python -m tests.bench.queries [--rows 10000000] [--plain]`.

Two tables are filled. In one, the events of 90 days were received as they happened, a few late; in the other, all but
the last six hours came within an hour, as a backfill brings them. Each query is asked as the product asks, once with
the caches empty and then over five windows, so that no answer is one that was given before.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from shipper.load.answers import READ
from shipper.load.migrations import migrations
from tests.bench.results import Section, Verdict, table
from tests.bench.rig import Rig
from tests.bench.shipping import Options, Say

ROWS = 10_000_000
START = 1_785_542_400  # 2026-08-01 00:00:00 UTC
SPAN = 90 * 86400
END = START + SPAN
# What came before was, in the second table, received by a backfill; what came later, as it happened.
LIVE = END - 6 * 3600
WINDOW = 300
DAY = 86400
_FILL = (Path(__file__).parent / "queries_fill.sql").read_text(encoding="utf-8")
_INSERT = 100_000

_RECEIVED = "openai_audit_received(from = {from:DateTime}, to = {to:DateTime})"
_PLAIN = "(SELECT * FROM openai_audit_logs WHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime})"


@dataclass(frozen=True, slots=True)
class Query:
    """`sql` reads `received`, which stands for the rows of the window, and what it needs of the past by eventTime.

    `length` is that of the window, in seconds.
    """

    name: str
    sql: str
    length: int = WINDOW


_SIGN_INS = """(SELECT id, actorUserID, eventTime, srcASCountryCode, srcLongitude, srcLatitude
              FROM received WHERE eventType = 'login.succeeded' AND actorUserID != '')"""


def _past(interval: str) -> str:
    """The time up to the newest event of the window, from so long before its oldest one on: an event may come late."""
    return (
        f"eventTime >= (SELECT min(eventTime) FROM received) - INTERVAL {interval}"
        " AND eventTime <= (SELECT max(eventTime) FROM received)"
    )


QUERIES = (
    Query(
        "every event, counted by type and actor", "SELECT eventType, actorUserID, count() FROM received GROUP BY ALL"
    ),
    Query("every column of rare types", "SELECT * FROM received WHERE eventType IN ('ip_allowlist.updated', 'role.x')"),
    Query(
        "failed sign-ins, then one that worked",
        f"""SELECT s.id, any(s.actorUserID), count() AS failures
        FROM (SELECT actorUserID, eventTime FROM openai_audit_logs
              WHERE eventType = 'login.failed' AND {_past("1 HOUR")}) AS p
        JOIN {_SIGN_INS} AS s ON p.actorUserID = s.actorUserID
        WHERE p.eventTime <= s.eventTime AND p.eventTime > s.eventTime - INTERVAL 1 HOUR
        GROUP BY s.id HAVING failures >= 2""",
    ),
    Query(
        "one address, many accounts",
        """SELECT srcIP, uniqExact(actorUserID) AS accounts, groupArray(id) FROM received
        WHERE eventType IN ('login.succeeded', 'login.failed') AND srcIP != '' GROUP BY srcIP HAVING accounts >= 2""",
    ),
    Query(
        "a country new to the actor in 30 days",
        f"""SELECT s.id, s.actorUserID, s.srcASCountryCode
        FROM (SELECT actorUserID, srcASCountryCode, min(eventTime) AS first FROM openai_audit_logs
              WHERE eventType = 'login.succeeded' AND {_past("30 DAY")}
              AND actorUserID IN (SELECT actorUserID FROM received) GROUP BY ALL) AS known
        JOIN {_SIGN_INS} AS s
        ON known.actorUserID = s.actorUserID AND known.srcASCountryCode = s.srcASCountryCode
        WHERE first >= s.eventTime""",
    ),
    Query(
        "an event type not seen in 30 days",
        f"""SELECT s.id, s.eventType
        FROM (SELECT eventType, min(eventTime) AS first FROM openai_audit_logs
              WHERE {_past("30 DAY")} GROUP BY eventType) AS known
        JOIN (SELECT id, eventType, eventTime FROM received) AS s ON known.eventType = s.eventType
        WHERE first >= s.eventTime""",
    ),
    Query(
        "an account back after 30 days, all history",
        f"""SELECT actorUserID, max(eventTime) AS before FROM openai_audit_logs
        WHERE eventTime < (SELECT min(eventTime) FROM received) - INTERVAL 30 DAY AND actorUserID IN (
            SELECT actorUserID FROM received WHERE actorUserID != '' AND actorUserID NOT IN (
                SELECT actorUserID FROM openai_audit_logs
                WHERE {_past("30 DAY")} AND eventTime < (SELECT min(eventTime) FROM received)))
        GROUP BY actorUserID""",
    ),
    Query(
        "a burst of keys within 10 minutes",
        f"""SELECT s.id, count() AS keys
        FROM (SELECT actor['id'] AS maker, eventTime FROM openai_audit_logs
              WHERE eventType = 'api_key.created' AND {_past("10 MINUTE")}) AS p
        JOIN (SELECT id, actor['id'] AS maker, eventTime FROM received WHERE eventType = 'api_key.created') AS s
        ON p.maker = s.maker
        WHERE p.eventTime <= s.eventTime AND p.eventTime > s.eventTime - INTERVAL 10 MINUTE
        GROUP BY s.id HAVING keys >= 3""",
    ),
    Query(
        "ja4 that changed within a day",
        f"""SELECT s.id, s.actorUserID, known.different
        FROM (SELECT actorUserID, uniqExact(tags['ja4']) AS different FROM openai_audit_logs
              WHERE actorUserID IN (SELECT actorUserID FROM received) AND tags['ja4'] != '' AND {_past("1 DAY")}
              GROUP BY actorUserID HAVING different > 1) AS known
        JOIN {_SIGN_INS} AS s ON known.actorUserID = s.actorUserID""",
    ),
    Query(
        "impossible travel since the sign-in before",
        f"""SELECT s.id, geoDistance(s.srcLongitude, s.srcLatitude, p.lon, p.lat) / 1000 AS km
        FROM {_SIGN_INS} AS s
        ASOF JOIN (SELECT actorUserID, eventTime, srcLongitude AS lon, srcLatitude AS lat FROM openai_audit_logs
                   WHERE eventType = 'login.succeeded' AND actorUserID IN (SELECT actorUserID FROM received)
                   AND {_past("1 DAY")}) AS p
        ON s.actorUserID = p.actorUserID AND s.eventTime > p.eventTime
        WHERE km > 900 * (s.eventTime - p.eventTime) / 3600""",
    ),
    Query(
        "a source silent for six hours",
        """SELECT workspaceID, sourceID, max(eventTime) AS last FROM openai_audit_logs
        WHERE eventTime >= {to:DateTime} - INTERVAL 30 DAY AND eventTime < {to:DateTime}
        GROUP BY ALL HAVING last < {to:DateTime} - INTERVAL 6 HOUR""",
    ),
    Query(
        "24 hours to catch up: one address, many accounts",
        """SELECT srcIP, uniqExact(actorUserID) AS accounts, groupArray(id) FROM received
        WHERE eventType IN ('login.succeeded', 'login.failed') AND srcIP != '' GROUP BY srcIP HAVING accounts >= 5""",
        length=DAY,
    ),
)


@dataclass(frozen=True, slots=True)
class Case:
    """A table, and where in it the windows end, the last one first.

    Windows that hold a good part of all events are measured, and not held to a second: the work is in the events.
    """

    name: str
    backfilled: bool
    end: int
    full: bool = False

    def judges(self, query: Query) -> bool:
        return not self.full and not (self.backfilled and query.length == DAY)


CASES = (
    Case("now", backfilled=False, end=END - 60),
    Case("backtest", backfilled=False, end=END - 50 * DAY),
    Case("now, after a backfill", backfilled=True, end=END - 60),
    Case("during a backfill", backfilled=True, end=LIVE - 1500, full=True),
)


@dataclass(frozen=True, slots=True)
class Answer:
    seconds: float
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Store:
    """A database of the server, asked over HTTP with the settings of the product's own reads."""

    url: str
    database: str

    def ask(self, sql: str, parameters: Mapping[str, object] | None = None) -> Answer:
        arguments = {**READ, "database": self.database, "wait_end_of_query": "1"}
        arguments |= {f"param_{name}": str(value) for name, value in (parameters or {}).items()}
        address = f"{self.url}/?{urllib.parse.urlencode(arguments)}"
        began = time.perf_counter()
        with urllib.request.urlopen(address, data=sql.encode(), timeout=600) as answer:  # noqa: S310 - our own server
            answer.read()
            summary = json.loads(answer.headers["X-ClickHouse-Summary"])
        return Answer(time.perf_counter() - began, int(summary["read_rows"]), int(summary["read_bytes"]))


def _chunks(rows: int, *, backfilled: bool) -> Iterator[tuple[int, int]]:
    """First event and number of events of each insert: large ones, then one for each five minutes of six hours."""
    old = rows * (LIVE - START) // SPAN
    large = [(first, min(_INSERT, old - first)) for first in range(0, old, _INSERT)]
    # A backfill reads the newest first.
    yield from reversed(large) if backfilled else large
    few = max(1, rows * WINDOW // SPAN)
    yield from ((first, min(few, rows - first)) for first in range(old, rows, few))


def fill(store: Store, rows: int, *, backfilled: bool) -> None:
    """Apply the schema and insert the events, some of them twice, in the parts that inserts and merges make of them."""
    for migration in migrations():
        for statement in migration.statements:
            store.ask(statement)
    shape = {"start": START, "span": SPAN, "rows": rows, "until": LIVE, "backfilled": int(backfilled)}
    for first, count in _chunks(rows, backfilled=backfilled):
        store.ask(_FILL, {**shape, "first": first, "count": count})
    store.ask(
        "INSERT INTO openai_audit_logs SELECT * REPLACE (receivedAt + 60 AS receivedAt) FROM openai_audit_logs"
        f" WHERE cityHash64(eventID) % 1000 = 0 AND eventTime >= {END - 10 * DAY} AND eventTime < {END - DAY}"
    )


def _empty_caches(store: Store, folder: Path) -> None:
    """The server's caches, and what the kernel holds of its files, as far as it lets go of them."""
    for cache in ("MARK CACHE", "UNCOMPRESSED CACHE", "QUERY CONDITION CACHE", "PRIMARY INDEX CACHE"):
        store.ask(f"SYSTEM DROP {cache}")
    for path in folder.rglob("*.bin"):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # merged away
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _asked(store: Store, query: Query, case: Case, runs: int, folder: Path) -> tuple[Answer, list[Answer]]:
    """The answer with the caches empty, and the others."""
    answers = []
    for number in range(runs + 1):
        if number == 0:
            _empty_caches(store, folder)
        end = case.end - number * WINDOW
        answers.append(store.ask(query.sql, {"from": end - query.length, "to": end}))
    return answers[0], answers[1:]


def _spelled(query: Query, *, plain: bool) -> Query:
    """With the rows of the window where it says `received`."""
    return replace(query, sql=query.sql.replace("FROM received", f"FROM {_PLAIN if plain else _RECEIVED}"))


def measure(rig: Rig, options: Options, say: Say, *, plain: bool = False) -> Section:
    """The part of the benchmark. `plain` reads the window with a condition on the table, to compare."""
    rows = options.events(ROWS)
    found: dict[str, dict[str, tuple[Answer, list[Answer]]]] = {query.name: {} for query in QUERIES}
    for backfilled in (False, True):
        with rig.database() as name:
            store = Store(rig.clickhouse, name)
            say(f"queries  filling {rows:,} rows, {'by a backfill' if backfilled else 'as they happened'}")
            fill(store, rows, backfilled=backfilled)
            folder = Path(rig.sql("SELECT path FROM system.disks WHERE name = 'default'"))
            for case in (case for case in CASES if case.backfilled is backfilled):
                for query in QUERIES:
                    cold, warm = _asked(store, _spelled(query, plain=plain), case, options.runs, folder)
                    found[query.name][case.name] = (cold, warm)
                    say(f"queries  {case.name:22}{query.name:50}{_shown(warm)}, cold {cold.seconds * 1000:.0f}")
    return _section(rows, found)


def _shown(answers: Sequence[Answer]) -> str:
    """Median milliseconds; most million rows and megabytes read."""
    milliseconds = median(answer.seconds for answer in answers) * 1000
    read = max(answer.rows for answer in answers) / 1e6
    return f"{milliseconds:.0f} ms, {read:.1f} M, {max(answer.bytes for answer in answers) / 1e6:.0f} MB"


def _section(rows: int, found: Mapping[str, Mapping[str, tuple[Answer, list[Answer]]]]) -> Section:
    verdicts = []
    for case in CASES:
        judged = [query.name for query in QUERIES if case.judges(query)]
        medians = {name: median(one.seconds for one in found[name][case.name][1]) for name in judged}
        if slowest := max(medians, key=lambda name: medians[name], default=None):
            verdicts.append(
                Verdict(
                    f"Each of {len(judged)} detection-shaped queries over {rows:,} rows, {case.name}: under 1 s",
                    f"at most {medians[slowest] * 1000:.0f} ms ({slowest})",
                    medians[slowest] < 1,
                )
            )
    shown = table(
        ["detection-shaped query: ms, rows read, MB read", *(case.name for case in CASES)],
        ([name, *(_shown(cases[case.name][1]) for case in CASES)] for name, cases in found.items()),
    )
    raw = {
        name: {
            case: [[one.seconds, one.rows, one.bytes] for one in (cold, *warm)] for case, (cold, warm) in cases.items()
        }
        for name, cases in found.items()
    }
    return Section("queries", shown, verdicts, raw)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.queries", description="Measure queries alone.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="without the view, to compare")
    given = parser.parse_args(arguments)
    with Rig() as rig:
        options = Options(given.runs, given.rows / ROWS)
        section = measure(rig, options, lambda line: print(line, file=sys.stderr, flush=True), plain=given.plain)
    print("\n".join([section.text, "", *map(str, section.verdicts)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
