"""The outbox: which alert is to be sent where, and what became of it. One row per route, finding and action.

A run queues before it moves a rule's watermark, and notes a delivery after the receiver has accepted it. So a crash at
any place repeats work and forgets no alert.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

from shipper.detect.alerts.actions import end_of, ends, trigger
from shipper.detect.alerts.destinations import DESTINATIONS
from shipper.detect.findings import Finding
from shipper.detection_settings import RouteSettings, SuppressionSettings
from shipper.load.clickhouse import Database
from shipper.load.tables import ALERTS, insert_token
from shipper.model import RunID

_T = TypeVar("_T")

# So many ids are bound to one query: they travel in its URL.
_IDS = 500

_NEVER = datetime.fromtimestamp(0, UTC)


class State(IntEnum):
    """As the table has them: the larger one wins."""

    PENDING = 1
    DELIVERED = 2
    REFUSED = 3


class Alert(NamedTuple):
    """A row of the outbox. Times are Unix seconds; `done_at` is 0 while it is pending."""

    route: str
    finding_id: str
    action: str
    state: State
    queued_at: float
    done_at: float
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class Queued:
    """What `queue` did: new alerts by route, and the findings that a suppression kept from all routes."""

    routes: Mapping[str, int] = field(default_factory=dict)
    suppressed: int = 0

    @property
    def total(self) -> int:
        return sum(self.routes.values())


async def queue(  # noqa: PLR0913, PLR0917 - what a run knows
    database: Database,
    run_id: RunID,
    findings: Sequence[Finding],
    routes: Sequence[RouteSettings],
    suppressions: Sequence[SuppressionSettings],
    now: float,
    *,
    grown: Collection[str] = (),
) -> Queued:
    """Queue each finding for the routes that take it and were not told of it before. Harmless when it is repeated.

    The findings are in their table by then; `grown` are the ids of those that this run has added events to. A finding
    that is added to later has its row here already: it is told again only after an acknowledgement, once for each. One
    that was suppressed has none, and is told when it is added to after the suppression has ended.
    """
    suppressed = {one.id for one in findings if any(rule.holds(one.rule, one.entity, now) for rule in suppressions)}
    wanted = {
        (route.name, one.id): None
        for one in findings
        for route in routes
        if one.id not in suppressed and route.takes(one.rule, one.severity)
    }
    ids = {one for _, one in wanted}
    known = await _of(database, ids)
    anew = await _reopened(database, ids, grown)
    new = []
    for route, one in wanted:
        rows = known.get((route, one), [])
        action = trigger(anew.get(one, 0))
        told = {row.action for row in rows if not ends(row.action)}
        if not told or (one in anew and action not in told):
            new.append(_pending(route, one, action, _after(rows, now)))
    await _write(database, run_id, new)
    return Queued(dict(Counter(route for route, *_ in new)), len(suppressed))


async def queue_resolve(
    database: Database, finding_ids: Iterable[str], routes: Sequence[RouteSettings], now: float
) -> int:
    """Queue the end of these findings for every route that was told, or is about to be, and knows what an end is.

    Returns how many were queued. Harmless when it is repeated.
    """
    resolving = {route.name for route in routes if DESTINATIONS[route.type].resolves}
    new = []
    for (route, one), rows in sorted((await _of(database, set(finding_ids))).items()):
        known = {row.action for row in rows}
        told = [row.action for row in rows if not ends(row.action) and row.state is not State.REFUSED]
        if route in resolving:
            missing = [end_of(action) for action in told if end_of(action) not in known]
            new += [_pending(route, one, action, _after(rows, now)) for action in missing]
    await _write(database, RunID(f"{now}"), new)
    return len(new)


_READ = """
SELECT route, findingID, action, state, queuedAt, doneAt, attempts, error
FROM openai_audit_alerts
WHERE {condition}
ORDER BY queuedAt, findingID, route, action DESC
"""


_REOPENED = """
SELECT a.findingID, toUnixTimestamp64Milli(a.acknowledgedAt), a.acknowledgedAt < f.lastDetectedAt
FROM openai_audit_findings_acknowledged AS a
LEFT JOIN
(
    SELECT findingID, lastDetectedAt FROM openai_audit_findings WHERE findingID IN {ids:Array(String)}
) AS f ON f.findingID = a.findingID
WHERE a.findingID IN {ids:Array(String)}
"""


async def _of(database: Database, finding_ids: set[str]) -> dict[tuple[str, str], list[Alert]]:
    """The rows of these findings, by route and finding, the oldest first."""
    found = defaultdict(list)
    sql = _READ.format(condition="findingID IN {ids:Array(String)}")
    for ids in chunks(sorted(finding_ids), _IDS):
        for row in await database.query(sql, {"ids": list(ids)}):
            alert = _alert(row)
            found[alert.route, alert.finding_id].append(alert)
    return dict(found)


async def _reopened(database: Database, finding_ids: set[str], grown: Collection[str]) -> dict[str, int]:
    """Those of the findings that have grown since they were acknowledged, with the time of that in milliseconds.

    A run that ended between adding to a finding and queueing finds nothing new the next time: the table says it then.
    """
    found: dict[str, int] = {}
    for ids in chunks(sorted(finding_ids), _IDS):
        rows = await database.query(_REOPENED, {"ids": list(ids)})
        found |= {one: acknowledged_at for one, acknowledged_at, since in rows if since or one in grown}
    return found


def _after(alerts: Sequence[Alert], now: float) -> float:
    """Now, or the next millisecond after all of these: the clock of the host that queued them may be ahead."""
    return max(now, *(alert.queued_at + 0.001 for alert in alerts)) if alerts else now


async def unfinished(database: Database, *, refused: bool = False) -> list[Alert]:
    """The pending alerts, the oldest first, a finding's trigger before its end. With `refused` those too."""
    states = [State.PENDING, State.REFUSED] if refused else [State.PENDING]
    sql = _READ.format(condition="state IN {states:Array(UInt8)}")
    return [_alert(row) for row in await database.query(sql, {"states": [int(state) for state in states]})]


async def note(database: Database, alerts: Sequence[Alert], state: State, error: str, now: float) -> None:
    """Write down what one more try of these alerts has come to. A pending one stays pending, with its error."""
    moment = _NEVER if state is State.PENDING else datetime.fromtimestamp(now, UTC)
    rows = [
        (one.route, one.finding_id, one.action, int(state), _time(one.queued_at), moment, one.attempts + 1, error)
        for one in alerts
    ]
    # Of its own: the same words about a later try are not the same insert.
    await _write(database, RunID(uuid4().hex), rows)


async def _write(database: Database, run_id: RunID, rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    token = insert_token(run_id, ALERTS, [f"{route}/{one}/{action}/{state}" for route, one, action, state, *_ in rows])
    await database.insert(ALERTS.name, ALERTS.columns, ALERTS.encode(rows), token=token)


def _pending(route: str, finding_id: str, action: str, now: float) -> tuple[Any, ...]:
    return (route, finding_id, action, int(State.PENDING), _time(now), _NEVER, 0, "")


def _alert(row: Sequence[Any]) -> Alert:
    route, finding_id, action, state, queued_at, done_at, attempts, error = row
    return Alert(route, finding_id, action, State(state), queued_at / 1000, done_at / 1000, attempts, error)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def chunks(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    """The values, `size` at a time."""
    for first in range(0, len(values), size):
        yield values[first : first + size]
