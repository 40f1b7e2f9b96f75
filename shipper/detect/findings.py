"""Findings: what detections found, as the table holds them. Runs add to a finding; FINAL shows the sum."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import NamedTuple

from shipper import __version__
from shipper.detection_settings import Severity
from shipper.load.clickhouse import Database
from shipper.load.tables import ACKNOWLEDGED, FINDINGS, insert_token
from shipper.model import RunID


class Proof(NamedTuple):
    """One row of `openai_audit_logs`: with workspaceID, source and time are the beginning of the table's sort key."""

    source_id: str
    event_time: int
    id: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. Times are Unix seconds, but for those of its detection, which are milliseconds.

    Lists are sorted, so that two findings with the same content are equal.
    """

    workspace_id: str
    id: str
    rule: str
    entity: str
    bucket_start: int
    title: str
    severity: Severity
    risk_score: int
    tactics: tuple[str, ...]
    techniques: tuple[str, ...]
    first_seen: int
    last_seen: int
    events: tuple[Proof, ...]
    event_types: tuple[str, ...]
    actors: tuple[str, ...]
    src_ips: tuple[str, ...]
    resources: tuple[str, ...]
    details: tuple[str, ...]
    first_detected_at: int
    last_detected_at: int
    query: str
    parameters: str
    run_id: str
    acknowledged_at: int = 0
    acknowledged_by: str = ""
    note: str = ""

    @property
    def count(self) -> int:
        """How many events prove it."""
        return len(self.events)


def finding_id(workspace_id: str, rule: str, entity: str, bucket_start: int) -> str:
    """32 hexadecimal digits: BLAKE2b, 128 bits, over the four as a JSON array, so that no two run into one text."""
    text = json.dumps([workspace_id, rule, entity, bucket_start], ensure_ascii=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


async def add(database: Database, run_id: RunID, findings: Sequence[Finding], *, window: tuple[int, int]) -> None:
    """Add to the table what rules found in one window. Harmless when it is repeated."""
    if not findings:
        return
    rows = [
        (
            *(one.workspace_id, one.id, one.rule, one.entity, one.bucket_start, one.title, str(one.severity)),
            *(one.risk_score, list(one.tactics), list(one.techniques), one.first_seen, one.last_seen),
            *([_proof(proof) for proof in one.events], list(one.event_types), list(one.actors), list(one.src_ips)),
            *(list(one.resources), list(one.details), _moment(one.first_detected_at), _moment(one.last_detected_at)),
            *(one.query, one.parameters, one.run_id, __version__),
        )
        for one in findings
    ]
    token = insert_token(run_id, FINDINGS, [*map(str, window), *(one.id for one in findings)])
    await database.insert(FINDINGS.name, FINDINGS.columns, FINDINGS.encode(rows), token=token)


def _proof(proof: Proof) -> tuple[str, int, str]:
    return (proof.source_id, proof.event_time, proof.id)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which findings: empty means any. `ids` are ids or their first digits. `since` is of the last detection, ms."""

    ids: tuple[str, ...] = ()
    rule: str = ""
    severity: Severity = Severity.INFO
    since: int = 0
    acknowledged: bool = True


# Without the names in the tuples, of which the driver would make dictionaries.
_EVENTS = "arrayMap(event -> (event.sourceID, toUnixTimestamp(event.eventTime), event.id), f.events)"
_READ = f"""
SELECT {", ".join(_EVENTS if name == "events" else f"f.{name}" for name in FINDINGS.columns if name != "version")},
    if(a.findingID = '', 0, toUnixTimestamp64Milli(a.acknowledgedAt)), a.acknowledgedBy, a.note
FROM openai_audit_findings AS f
LEFT JOIN openai_audit_findings_acknowledged AS a ON a.findingID = f.findingID
WHERE ({{rule:String}} = '' OR f.rule = {{rule:String}})
    AND f.severity IN {{severities:Array(String)}}
    AND toUnixTimestamp64Milli(f.lastDetectedAt) >= {{since:Int64}}
    AND (empty({{ids:Array(String)}}) OR arrayExists(id -> startsWith(f.findingID, id), {{ids:Array(String)}}))
    AND ({{acknowledged:UInt8}} OR a.findingID = '' OR a.acknowledgedAt < f.lastDetectedAt)
ORDER BY f.lastSeen DESC, f.rule, f.entity, f.findingID
LIMIT {{limit:UInt32}}
"""  # noqa: S608 - the names are our own


async def proofs(database: Database, ids: Sequence[str]) -> dict[str, set[Proof]]:
    """The events of those findings that are in the table."""
    if not ids:
        return {}
    rows = await database.query(
        f"SELECT f.findingID, {_EVENTS} FROM openai_audit_findings AS f"  # noqa: S608 - the names are our own
        " WHERE f.findingID IN {ids:Array(String)}",
        {"ids": sorted(set(ids))},
    )
    return {finding: {Proof(*event) for event in events} for finding, events in rows}


async def read(database: Database, chosen: Filter, limit: int = 1_000_000) -> list[Finding]:
    """The findings that `chosen` names, the last seen first. An acknowledged one that was added to since is open."""
    rows = await database.query(
        _READ,
        {
            "ids": list(chosen.ids),
            "rule": chosen.rule,
            "severities": [str(one) for one in Severity if one.rank >= chosen.severity.rank],
            "since": chosen.since,
            "acknowledged": int(chosen.acknowledged),
            "limit": limit,
        },
    )
    return [_finding(row) for row in rows]


def _finding(row: Sequence[object]) -> Finding:
    values = dict(zip(_FIELDS, row, strict=True))
    for name in ("tactics", "techniques", "event_types", "actors", "src_ips", "resources", "details"):
        values[name] = tuple(sorted(values[name]))  # type: ignore[call-overload]
    values["events"] = tuple(sorted(Proof(*proof) for proof in values["events"]))  # type: ignore[attr-defined]
    return Finding(**{**values, "severity": Severity(str(values["severity"]))})  # type: ignore[arg-type]


_FIELDS = (
    *("workspace_id", "id", "rule", "entity", "bucket_start", "title", "severity", "risk_score", "tactics"),
    *("techniques", "first_seen", "last_seen", "events", "event_types", "actors", "src_ips", "resources", "details"),
    *("first_detected_at", "last_detected_at", "query", "parameters", "run_id"),
    *("acknowledged_at", "acknowledged_by", "note"),
)


async def acknowledge(database: Database, ids: Iterable[str], *, now: float, by: str, note: str) -> None:
    """Note that somebody has looked at these findings."""
    wanted = list(ids)
    if not wanted:
        return
    moment = datetime.fromtimestamp(now, UTC)
    await database.insert(
        ACKNOWLEDGED.name,
        ACKNOWLEDGED.columns,
        ACKNOWLEDGED.encode([(one, moment, by, note) for one in wanted]),
        token=insert_token(RunID(f"{now}"), ACKNOWLEDGED, wanted),
    )
