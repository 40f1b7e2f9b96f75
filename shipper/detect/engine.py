"""Runs rules over windows of receivedAt, and folds what they return into findings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import orjson

from shipper import __version__
from shipper.config import Settings
from shipper.detect.findings import Finding, Proof, add, finding_id, proofs
from shipper.detect.rule import WINDOW, Rule
from shipper.errors import DatabaseError, ShipperError
from shipper.load.clickhouse import Database
from shipper.load.tables import DETECTIONS, WATERMARKS, insert_token
from shipper.model import RunID, Window, iso
from shipper.telemetry import logger

# One row per finding, whatever the rule returns, and never a huge one: of more events the first are kept, of more texts
# those that sort first.
_EVENTS, _TEXTS = 10_000, 1_000
FOLDED = f"""SELECT
    workspaceID,
    entity,
    intDiv(toUnixTimestamp(eventTime), {{{{bucket:UInt32}}}}) * {{{{bucket:UInt32}}}} AS bucketStart,
    toUnixTimestamp(min(eventTime)),
    toUnixTimestamp(max(eventTime)),
    arrayMap(event -> (event.2, event.1, event.3), arraySlice(arraySort(
        groupUniqArray((toUnixTimestamp(eventTime), sourceID, id))), 1, {_EVENTS})),
    arraySort(groupUniqArray(eventType)),
    arraySlice(arraySort(groupUniqArrayIf(multiIf(actorUserEmail != '', actorUserEmail, serviceAccountID != '',
        serviceAccountID, actorUserID != '', actorUserID, apiKeyID) AS who, who != '')), 1, {_TEXTS}),
    arraySlice(arraySort(groupUniqArrayIf(srcIP, srcIP != '')), 1, {_TEXTS}),
    arraySlice(arraySort(groupUniqArrayArray(resources)), 1, {_TEXTS}),
    arraySlice(arraySort(groupUniqArrayIf(detail, detail != '')), 1, {_TEXTS})
FROM
(
{{sql}}
)
GROUP BY workspaceID, entity, bucketStart
ORDER BY workspaceID, bucketStart, entity"""  # noqa: S608 - the numbers are our own

_TYPES = (
    "SELECT DISTINCT eventType FROM openai_audit_logs"
    " WHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime} SETTINGS final = 0"
)
# ClickHouse's codes for a query that took too long or too much memory.
_OVER_A_LIMIT = {159, 241}
# Windows are not halved below this, in seconds.
_SHORTEST = 60

_WATERMARKS = "SELECT rule, toUnixTimestamp(watermark) FROM openai_audit_watermarks"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one rule in one window. `skipped` says that none of its event types was in it.

    `too_much` says that its query exceeds a limit over this window, which is long enough to be halved. Where it is not,
    that is an error, and the rule goes on behind the window: it would exceed the limit again at every pass.
    """

    rule: Rule
    window: Window
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    error: ShipperError | None = None
    skipped: bool = False
    too_much: bool = False

    @property
    def done(self) -> bool:
        """Whether the rule goes on behind the window."""
        return self.error is None or _over_a_limit(self.error)


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of detections: how its queries are bounded, and who asks the time, Unix seconds.

    `check` is called before each rule; what it raises ends the pass.
    """

    database: Database
    settings: Settings
    run_id: RunID
    clock: Callable[[], float] = time.time
    check: Callable[[], None] = lambda: None

    async def look(self, rules: Sequence[Rule], window: Window) -> list[Outcome]:
        """Each rule over the window. A rule that fails is an outcome with its error, and stops no other."""
        if not window.seconds:
            return [Outcome(rule, window) for rule in rules]
        found = await self.database.query(_TYPES, {"from": window.start, "to": window.end})
        present = {event_type for (event_type,) in found}
        return [await self._ask(rule, window, present) for rule in rules]

    async def _ask(self, rule: Rule, window: Window, present: set[str]) -> Outcome:
        self.check()
        if rule.types and not rule.types & present:
            return Outcome(rule, window, skipped=True)
        bound: dict[str, Any] = {**rule.values, "from": window.start, "to": window.end, "bucket": rule.bucket}
        begun = time.perf_counter()
        try:
            rows = await self.database.ask(
                FOLDED.format(sql=rule.sql),
                bound,
                seconds=self.settings.detect_timeout.total_seconds(),
                memory=self.settings.detect_memory,
            )
        except ShipperError as error:
            seconds = time.perf_counter() - begun
            if _over_a_limit(error) and window.seconds >= 2 * _SHORTEST:
                return Outcome(rule, window, seconds=seconds, too_much=True)
            logger().error("rule failed", rule=rule.id, window=str(window), error=str(error))
            return Outcome(rule, window, seconds=seconds, error=error)
        seconds = time.perf_counter() - begun
        return Outcome(rule, window, tuple(self._finding(rule, window, row) for row in rows), seconds)

    def _finding(self, rule: Rule, window: Window, row: Sequence[Any]) -> Finding:
        workspace, entity, bucket_start, first, last, events, types, actors, addresses, resources, details = row
        now = int(self.clock() * 1000)
        return Finding(
            workspace_id=workspace,
            id=finding_id(workspace, rule.id, entity, bucket_start),
            rule=rule.id,
            entity=entity,
            bucket_start=bucket_start,
            title=rule.title,
            severity=rule.severity,
            risk_score=rule.risk,
            tactics=rule.tactics,
            techniques=rule.techniques,
            first_seen=first,
            last_seen=last,
            events=tuple(Proof(*event) for event in sorted(events)),
            event_types=tuple(sorted(types)),
            actors=tuple(sorted(actors)),
            src_ips=tuple(sorted(addresses)),
            resources=tuple(sorted(resources)),
            details=tuple(sorted(details)),
            first_detected_at=now,
            last_detected_at=now,
            query=rule.sql,
            parameters=_told(rule.values, window),
            run_id=self.run_id,
        )

    async def record(self, outcomes: Sequence[Outcome], *, live: bool) -> dict[str, int]:
        """Write the log of these outcomes, of one window, and of a live pass how far the rules have come; give that.

        After this a live pass does not look at the window again: findings and alerts must be written before.
        """
        come = {one.rule.id: one.window.end for one in outcomes if one.done and live}
        await self.mark(come)
        now = int(self.clock())
        rows = [
            (
                *(self.run_id, one.rule.id, one.window.start, one.window.end, now, live),
                *("failed" if one.error else "ok", len(one.findings), sum(each.count for each in one.findings)),
                *(one.seconds, str(one.error or ""), __version__),
            )
            for one in outcomes
            if not one.skipped
        ]
        if rows:
            token = insert_token(self.run_id, DETECTIONS, [f"{row[1]} {row[2]} {row[3]}" for row in rows])
            await self.database.insert(DETECTIONS.name, DETECTIONS.columns, DETECTIONS.encode(rows), token=token)
        return come

    async def keep(self, outcomes: Sequence[Outcome]) -> set[str]:
        """Add to the table what is new; a finding whose events are all there already stays as it is.

        Returns the ids of those that were added to.
        """
        findings = [finding for outcome in outcomes for finding in outcome.findings]
        known = await proofs(self.database, [finding.id for finding in findings])
        grown = [finding for finding in findings if not known.get(finding.id, set()).issuperset(finding.events)]
        if grown:
            await add(self.database, self.run_id, grown, window=(outcomes[0].window.start, outcomes[0].window.end))
        return {finding.id for finding in grown}

    async def watermarks(self) -> dict[str, int]:
        """Where each rule goes on."""
        return dict(await self.database.query(_WATERMARKS))

    async def mark(self, watermarks: Mapping[str, int]) -> None:
        """Write down how far rules have come."""
        if not watermarks:
            return
        token = insert_token(self.run_id, WATERMARKS, [f"{rule} {end}" for rule, end in watermarks.items()])
        rows = WATERMARKS.encode(watermarks.items())
        await self.database.insert(WATERMARKS.name, WATERMARKS.columns, rows, token=token)


def _over_a_limit(error: ShipperError) -> bool:
    return isinstance(error, DatabaseError) and error.code in _OVER_A_LIMIT


def plan(
    rules: Iterable[Rule], watermarks: Mapping[str, int], end: int, *, lookback: int, step: int
) -> list[tuple[Window, list[Rule]]]:
    """Stretches of receivedAt up to `end`, each with the rules that have to look at it, none longer than `step`.

    A rule without a watermark begins `lookback` seconds before the end.
    """
    starts = sorted(
        ((watermarks.get(rule.id, max(0, end - lookback)), rule) for rule in rules), key=lambda pair: pair[0]
    )
    steps = []
    for start, group in groupby(starts, key=lambda pair: pair[0]):
        chosen = [rule for _, rule in group]
        steps += [(window, chosen) for window in cut(Window(start, max(start, end)), step)]
    return steps


def cut(window: Window, step: int) -> list[Window]:
    """The window in pieces of at most `step` seconds, oldest first; none for an empty one."""
    return [Window(start, min(start + step, window.end)) for start in range(window.start, window.end, step)]


def _told(values: Mapping[str, Any], window: Window) -> str:
    """The parameters as JSON, the window readable; bound times are the same seconds."""
    edges = {name: iso(second) for name, second in zip(WINDOW, (window.start, window.end), strict=True)}
    return orjson.dumps({**edges, **values}).decode()
