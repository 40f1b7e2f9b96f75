"""What a rule must be before it is trusted: read as text, then run on its own cases, in windows cut in many ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson

from shipper.detect.attack import wrong
from shipper.detect.cases import NOON, Placed, insert, moments, place, workspace_of
from shipper.detect.engine import FOLDED
from shipper.detect.rule import READABLE, REQUIRED, WINDOW, Case, Event, Rule, with_values
from shipper.errors import ShipperError
from shipper.load.clickhouse import Database
from shipper.load.tables import DESTINATION, LOGS
from shipper.model import WorkspaceID
from shipper.normalize.catalog import known_types

_DAY = 86_400
# A window for each moment at which an event of the cases is received, but not for more than about so many.
_PIECES = 16
# When bystanders are received: after all cases.
_LATER = NOON + 400 * _DAY
# Nearly the first and the last second there is, as a client may send them, in minutes from the cases.
_EDGES = (f"-{(NOON - 1200) // 60}m", f"{(4_294_966_800 - NOON) // 60}m")
_LIMITS: Mapping[str, Any] = {"seconds": 60.0, "memory": 4 << 30}

# The only ways to say `received`.
_VIEWS = re.compile(
    r"openai_audit_(?:received|around)\(\s*from\s*=\s*\{from:DateTime\}\s*,\s*to\s*=\s*\{to:DateTime\}"
    r"(?:\s*,\s*seconds\s*=\s*\{\w+:UInt32\}(?:\s*\+\s*\{\w+:UInt32\})?)?\s*\)"
)
_ANY_VIEW = re.compile(r"openai_audit_(?:received|around)\s*\(")
_RECEIVED = re.compile(r"\breceivedAt\b(?!\s*(?:>=\s*\{from:DateTime\}|<\s*\{to:DateTime\}))")
# Of a row of another table than the log's it is the only time there is.
_OTHER_TIME = re.compile(r"\breceivedAt AS eventTime\b")
_CLOCK = re.compile(r"\b(now|now64|today|yesterday|rand\w*|generateUUID\w*|nowInBlock)\s*\(", re.IGNORECASE)
_SETTINGS = re.compile(r"\bSETTINGS\b(?!\s+final\s*=\s*0\s*(?:\)|\Z))", re.IGNORECASE)
# JSON functions and types, and what reads a text as one. isValidJSON() may be given anything.
_PARSED = re.compile(
    r"\b(JSON\w*)\s*\(\s*(?:\w+\.)?rawLog\b|\brawLog\s*(?:::|AS)\s*(JSON|Object)\b",
    re.IGNORECASE,
)
_LITERAL = re.compile(r"'([^']*)'")
_TABLE = re.compile(r"\bopenai_audit_logs\b")
_UNTIL = re.compile(r"\breceivedAt\s*<\s*\{to:DateTime\}")


def read(rule: Rule) -> list[str]:
    """What is wrong with the rule as a text, one sentence each."""
    return [*_about_text(rule), *_about_parameters(rule), *_about_window(rule), *_about_payload(rule)]


def _about_text(rule: Rule) -> Iterator[str]:
    yield from (complaint for pair in rule.attack if (complaint := wrong(pair)))
    if not rule.attack and not rule.id.startswith("health_"):
        yield "names no ATT&CK tactic and technique"
    if not 2 <= len(rule.runbook) <= 3:
        yield f"expected a runbook of 2 or 3 steps, got {len(rule.runbook)}"
    for name in ("false_positives", "blind_spots", "firing", "silent"):
        if not getattr(rule, name):
            yield f"has no {name.replace('_', ' ')}"
    if len(rule.title) > 80:
        yield "the title is longer than 80 characters"
    named = {text for text in _LITERAL.findall(rule.without_comments) if text in known_types()}
    if rule.types and named != rule.types:
        yield f"types and the SQL differ in {', '.join(sorted(named ^ rule.types))}"


def _about_parameters(rule: Rule) -> Iterator[str]:
    declared = {name: parameter.type for name, parameter in rule.parameters.items()} | WINDOW
    used = rule.holes()
    for name in sorted(declared.keys() - used.keys()):
        yield f"the parameter {name} is declared and not used"
    for name in sorted(used.keys() - declared.keys()):
        yield f"the parameter {name} is used and not declared"
    for name in sorted(used.keys() & declared.keys()):
        if used[name] != declared[name]:
            yield f"the parameter {name} is declared as {declared[name]} and used as {used[name]}"


def _about_window(rule: Rule) -> Iterator[str]:
    rest = _VIEWS.sub(" ", rule.statement)
    if _ANY_VIEW.search(rest):
        yield "a view is called with something other than from = {from:DateTime}, to = {to:DateTime}"
    if not _TABLE.search(rest) and not _VIEWS.search(rule.statement):
        rest = _OTHER_TIME.sub(" ", rest)
    if match := _RECEIVED.search(rest):
        around = " ".join(rest[max(0, match.start() - 30) : match.end() + 30].split())
        yield f"receivedAt is compared with something other than >= {{from:DateTime}} and < {{to:DateTime}}: {around}"
    if match := _CLOCK.search(rest):
        yield f"the clock or chance has a say: {match[1]}()"
    if _SETTINGS.search(rest):
        yield "SETTINGS may only say final = 0: the limits of a query are not the rule's to change"
    if len(_TABLE.findall(rest)) > len(_UNTIL.findall(rest)):
        yield "openai_audit_logs is read without receivedAt < {to:DateTime}"


def _about_payload(rule: Rule) -> Iterator[str]:
    if match := _PARSED.search(rule.statement):
        yield f"{match[1] or match[2]} is given rawLog, which one odd byte makes unreadable: see READABLE in rule.py"
    if re.search(r"\bAS\s+readable\b", rule.statement) and "".join(READABLE.split()) not in _unspaced(rule):
        yield "readable is something other than READABLE in rule.py"


def _unspaced(rule: Rule) -> str:
    return "".join(rule.without_comments.split())


@dataclass(frozen=True, slots=True)
class _Trial:
    """A case in its workspace, and whether the rule has to fire on it."""

    case: Case
    workspace: str
    fires: bool


def _bystander(rule: Rule, placed: Sequence[Placed]) -> list[Placed]:
    """An event that has no part in the case, at the time of its last one, and received long after.

    With it the window after the case has the case's events around it: they must not be found again.
    """
    rows = [one.row for one in placed if one.row is not None]
    if not rule.types or not rows:
        return []
    last = max(rows, key=lambda row: row.event_time)
    at, late = f"{last.event_time - NOON}s", f"{_LATER - last.event_time}s"
    event = Event(type=_no_part_in(rule), at=at, late=late, user="bystander")
    return place(Case(why="", events=[event]), last.source.workspace_id)


def _no_part_in(rule: Rule) -> str:
    return next(name for name in ("group.updated", "logout.failed", "certificate.updated") if name not in rule.types)


def _at_the_edges(rule: Rule, placed: Sequence[Placed]) -> list[Placed]:
    """Events of 1970 and of 2106, received with the last of the case: the rule must find what it finds without them.

    In the case's workspace of a type that has no part in it, in another one of each of the rule's types.
    """
    rows = [one.row for one in placed if one.row is not None]
    if not rows:
        return []
    workspace = rows[0].source.workspace_id
    plain = [Event(type=_no_part_in(rule), at=at, user="bystander") for at in _EDGES]
    asked = {"scopes": ["all"], "role": "owner", "max_requests_per_1_minute": 1}
    full = [
        Event(
            type=kind,
            at=at,
            user="bystander",
            ip="192.0.2.250",
            country="AQ",
            latitude=-90.0,
            longitude=10.0,
            ja4="t13d_bystander_0",
            payload={"id": "user-bystander", "data": asked, "changes_requested": asked},
        )
        for at in _EDGES
        for kind in sorted(rule.types) or ["bystander.seen", "user.deleted", "user.updated"]
    ]
    edges = place(Case(why="", events=plain), workspace)
    edges += place(Case(why="", events=full), WorkspaceID(f"{workspace}/edges"))
    last = max(row.received_at for row in rows)
    for row in (one.row for one in edges if one.row is not None):
        row.received_at = last
    return edges


Emitted = dict[str, dict[tuple[str, int], frozenset[tuple[str, str]]]]


class Checker:
    """Runs rules on their cases in a database whose schema is applied, and which it fills. Use an empty one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def fill(self, rules: Sequence[Rule]) -> None:
        """Write the cases of all rules, the firing ones also in the other order of arrival."""
        placed: list[Placed] = []
        for rule in rules:
            for number, case in enumerate(rule.firing):
                fires = place(case, workspace_of(rule, "firing", number))
                turned = place(case, workspace_of(rule, "reversed", number), backwards=True)
                placed += [*fires, *_bystander(rule, fires), *_at_the_edges(rule, fires)]
                placed += [*turned, *_at_the_edges(rule, turned)]
            for number, case in enumerate(rule.silent):
                stays = place(case, workspace_of(rule, "silent", number))
                placed += [*stays, *_at_the_edges(rule, stays)]
        await insert(self._database, placed)

    async def run(self, rule: Rule) -> list[str]:
        """What is wrong with the rule when it is run, one sentence each. After `fill`."""
        found: list[str] = []
        try:
            found += await self._columns(rule)
            for values, trials in [] if found else _grouped(rule):
                found += await self._try(with_values(rule, orjson.loads(values)), trials)
        except ShipperError as error:
            found.append(f"does not run: {error}")
        return found

    async def _columns(self, rule: Rule) -> list[str]:
        described = await self._ask(f"DESCRIBE TABLE (\n{rule.sql}\n)", rule, (NOON, NOON + 1))
        types = {str(row[0]): str(row[1]).replace("DateTime('UTC')", "DateTime") for row in described}
        wrong_ones = [
            f"expected the column {name} {kind}, got {types.get(name, 'none')}"
            for name, kind in REQUIRED.items()
            if types.get(name) != kind
        ]
        extra = sorted(types.keys() - REQUIRED.keys() - {*LOGS.columns, *DESTINATION})
        return wrong_ones + [f"returns the column {name}, which nothing reads" for name in extra]

    async def _try(self, rule: Rule, trials: Sequence[_Trial]) -> list[str]:
        at = moments(one for trial in trials for one in place(trial.case, workspace_of(rule, "firing", 0)))
        start, end = NOON, at[-1] + 1
        whole = await self._emitted(rule, [(start, end)])
        complaints = [text for trial in trials for text in _judge(rule, trial, whole)]
        for name, window in (("before", (start - _DAY, start)), ("after", (end, _LATER + _DAY))):
            elsewhere = await self._emitted(rule, [window])
            complaints += [
                f"{trial.case.why}: found by the window {name} it ({trial.workspace})"
                for trial in trials
                if trial.workspace in elsewhere
            ]
        edges = sorted({start, *at[:: -(-len(at) // _PIECES)], end})
        pieces = await self._emitted(rule, list(pairwise(edges)))
        complaints += [
            f"{trial.case.why}: a window for each moment finds another thing than one window ({trial.workspace})"
            for trial in trials
            if pieces.get(trial.workspace, {}) != whole.get(trial.workspace, {})
        ]
        return complaints

    async def _emitted(self, rule: Rule, windows: Sequence[tuple[int, int]]) -> Emitted:
        """What findings hold after these windows: by workspace, (entity, bucket) to the events and details."""
        total: Emitted = {}
        for window in windows:
            rows = await self._ask(FOLDED.format(sql=rule.sql), rule, window)
            for workspace, entity, bucket, _, _, events, _, _, _, _, details in rows:
                for name, marks in _told_apart(workspace, [event[2] for event in events], details).items():
                    of = total.setdefault(name, {})
                    of[entity, bucket] = of.get((entity, bucket), frozenset()) | marks
        return total

    async def _ask(self, sql: str, rule: Rule, window: tuple[int, int]) -> list[tuple[Any, ...]]:
        bound = {**rule.values, "from": window[0], "to": window[1], "bucket": rule.bucket}
        return await self._database.ask(sql, bound, **_LIMITS)


def _told_apart(workspace: str, ids: Sequence[str], details: Sequence[str]) -> dict[str, frozenset[tuple[str, str]]]:
    """By workspace, what a finding holds. One without is about runs, and the run of a case is its workspace."""
    if workspace:
        return {workspace: frozenset({*(("event", name) for name in ids), *(("detail", text) for text in details)})}
    return {name: frozenset({("event", name)}) for name in ids}


def _grouped(rule: Rule) -> list[tuple[bytes, list[_Trial]]]:
    """The cases of the rule, those with the same parameters together."""
    groups: dict[bytes, list[_Trial]] = {}
    for kind, cases in (("firing", rule.firing), ("reversed", rule.firing), ("silent", rule.silent)):
        for number, case in enumerate(cases):
            key = orjson.dumps(case.parameters, option=orjson.OPT_SORT_KEYS)
            trial = _Trial(case, workspace_of(rule, kind, number), fires=kind != "silent")
            groups.setdefault(key, []).append(trial)
    return list(groups.items())


def _judge(rule: Rule, trial: _Trial, found: Emitted) -> Iterator[str]:
    got = found.get(trial.workspace, {})
    entities = sorted({entity for entity, _ in got})
    if not trial.fires:
        if got:
            yield f"{trial.case.why}: expected silence, found {', '.join(entities)}"
        return
    if entities != sorted(trial.case.entities):
        expected = ", ".join(sorted(trial.case.entities)) or "(none named)"
        yield f"{trial.case.why}: expected the entities {expected}, got {', '.join(entities) or 'none'}"
        return
    proof = {name for marks in got.values() for kind, name in marks if kind == "event"}
    if len(proof) != (expected_proof := _expected_proof(rule, trial.case)):
        yield f"{trial.case.why}: expected {expected_proof} events as proof, got {len(proof)}"


def _expected_proof(rule: Rule, case: Case) -> int:
    if case.proof is not None:
        return case.proof
    of_type: Callable[[str], bool] = rule.types.__contains__ if rule.types else bool
    return sum(event.times for event in case.events if of_type(event.type))
