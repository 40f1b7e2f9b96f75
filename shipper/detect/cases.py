"""The cases of a rule as rows of the table, through the same normalization as the API's events.

Every case has a workspace of its own, so that all of them lie in one table and no rule sees two at once. The words of
an event in a `.toml` file:

    type, payload            the event's type, and what it holds under its name
    at                       when: `5m` after the case begins, `-40d` before it
    late                     how much later than that it was received
    times, every             that many events, so far apart; `{n}` in a text is 1, 2, 3 …
    user, email              a session of `user-NAME`, with NAME@corp.example unless `email` says otherwise
    ip, country, latitude, longitude, user_agent, ja4
                             of that session
    key, service_account     instead: the API key, of a user or of the service account
    project                  the project's id
    columns                  what enrichment would have put into columns of the row
    odd                      what JSON functions cannot read and normalization can, in a field beside the documented
                             ones: a `surrogate` without its other half, a byte that is no `utf8`, a `number` over
                             64 bits, or `deep` nesting
    table, row               a row of another table than openai_audit_logs, by its columns; its workspace, or in a table
                             that has none its run, is the case's, and it was received or finished then
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from shipper.detect.rule import Case, Event, Rule
from shipper.durations import parse_duration
from shipper.errors import ConfigError
from shipper.load.clickhouse import Database
from shipper.load.rowbinary import Unwritable, encode
from shipper.load.rows import values
from shipper.load.tables import DETECTIONS, LOGS, TABLES, insert_token
from shipper.model import DeadLetter, Lane, RawEvent, Row, RunID, Source, SourceID, WorkspaceID
from shipper.normalize.events import normalize

# When the cases begin: 2026-03-11 12:00:00 UTC, a Wednesday.
NOON = 1_773_230_400

_ODD = {
    "": b"",
    "surrogate": rb',"client":"\ud83d"',
    "utf8": b',"client":"\xff"',
    "number": b',"client":1' + 24 * b"0",
    "deep": b',"client":' + 1100 * b"[" + 1100 * b"]",
}


@dataclass(frozen=True, slots=True)
class Placed:
    """An event of a case, made: a row of the log with its changed columns, or one of another table."""

    received_at: int
    row: Row | None
    columns: dict[str, Any]
    table: str


def workspace_of(rule: Rule, kind: str, number: int) -> WorkspaceID:
    """The workspace of a case: `RULE/firing/0`, `RULE/silent/1`, `RULE/reversed/0`."""
    return WorkspaceID(f"{rule.id}/{kind}/{number}")


def place(case: Case, workspace: WorkspaceID, *, backwards: bool = False) -> list[Placed]:
    """The case's events in its workspace. `backwards`: those of the window are received last to first.

    Raises ConfigError for an event that normalization would not take.
    """
    made = [one for event in case.events for one in _events(event, workspace)]
    if not backwards:
        return [one for _, one in made]
    now = [(at, one) for at, one in made if at >= NOON]
    moments = sorted((one.received_at for _, one in now), reverse=True)
    turned = [
        _received(one, moment)
        for moment, (_, one) in zip(moments, sorted(now, key=lambda pair: pair[1].received_at), strict=True)
    ]
    return [one for at, one in made if at < NOON] + turned


def _received(one: Placed, moment: int) -> Placed:
    if one.row is not None:
        one.row.received_at = moment
    return Placed(moment, one.row, {**one.columns, **(_known_at(moment) if one.table else {})}, one.table)


def _known_at(moment: int) -> dict[str, Any]:
    return {"receivedAt": moment, "finishedAt": moment}


def _seconds(text: str) -> int:
    sign, plain = (-1, text[1:]) if text.startswith("-") else (1, text)
    return sign * int(parse_duration(plain).total_seconds())


def _events(event: Event, workspace: WorkspaceID) -> Iterator[tuple[int, Placed]]:
    for number in range(event.times):
        at = NOON + _seconds(event.at) + number * _seconds(event.every)
        received_at = at + _seconds(event.late)
        filled = _filled(orjson.loads(orjson.dumps(event.row or event.payload)), number + 1)
        if event.table:
            of_case = {"workspaceID": workspace, "runID": workspace, **_known_at(received_at)}
            yield at, Placed(received_at, None, of_case | filled, event.table)
            continue
        if event.odd not in _ODD:
            raise ConfigError(f"{workspace}: an event is odd in the way {event.odd!r}, which there is not")
        raw = orjson.dumps(_body(event, at, number + 1, filled))[:-1] + _ODD[event.odd] + b"}"
        row = normalize(RawEvent(raw, Lane.ORGANIZATION, Source(workspace, SourceID("case")), received_at))
        if isinstance(row, DeadLetter):
            raise ConfigError(f"{workspace}: an event is none: {row.detail}")
        yield at, Placed(received_at, row, dict(event.columns), "")


def _filled(value: Any, number: int) -> Any:
    """The value with `{n}` filled in, in every text of it."""
    if isinstance(value, str):
        return value.replace("{n}", str(number))
    if isinstance(value, list):
        return [_filled(item, number) for item in value]
    if isinstance(value, dict):
        return {name: _filled(item, number) for name, item in value.items()}
    return value


def _body(event: Event, at: int, number: int, payload: Any) -> dict[str, Any]:
    words = _filled({name: getattr(event, name) for name in event.__struct_fields__ if name != "payload"}, number)
    body: dict[str, Any] = {
        "id": f"{event.type}-{at}-{number}-{_who(words)}",
        "type": words["type"],
        "effective_at": at,
    }
    if words["project"]:
        body["project"] = {"id": words["project"], "name": words["project"]}
    user = {"id": f"user-{words['user']}", "email": words["email"] or f"{words['user']}@corp.example"}
    if words["key"]:
        account = words["service_account"]
        owner = (
            {"type": "service_account", "service_account": {"id": account}}
            if account
            else {"type": "user", "user": user}
        )
        body["actor"] = {"type": "api_key", "api_key": {"id": words["key"], **owner}}
    elif words["user"]:
        details = {
            "country": words["country"],
            "latitude": str(words["latitude"] or ""),
            "longitude": str(words["longitude"] or ""),
        }
        session = {"user": user, "ip_address": words["ip"], "user_agent": words["user_agent"], "ja4": words["ja4"]}
        body["actor"] = {"type": "session", "session": {**session, "ip_address_details": details}}
    if payload is not None:
        body[words["type"]] = payload
    return body


def _who(words: dict[str, Any]) -> str:
    return f"{words['user']}{words['key']}{words['ip']}"


async def insert(database: Database, placed: Sequence[Placed]) -> None:
    """Write the cases' rows."""
    rows = []
    for one in placed:
        if one.row is not None:
            if unknown := one.columns.keys() - set(LOGS.columns):
                raise ConfigError(
                    f"a case sets {min(unknown)!r}, which is no column of an event", hint="See `shipper schema show`."
                )
            rows.append(values(one.row) | one.columns)
    if rows:
        body = [piece for row in rows for piece in _encoded(LOGS.columns, LOGS.types, row, row["workspaceID"])]
        token = insert_token(RunID("cases"), LOGS, [row["id"] for row in rows])
        await database.insert(LOGS.name, LOGS.columns, body, token=token)
    if any(one.table == DETECTIONS.name for one in placed):
        # The cases are older than the table keeps its rows.
        await database.command(f"ALTER TABLE {DETECTIONS.name} MODIFY TTL finishedAt + toIntervalDay(20000)")
    for one in placed:
        if one.table:
            await _insert_other(database, one)


async def _insert_other(database: Database, one: Placed) -> None:
    table = next((known for known in TABLES if known.name == one.table), None)
    if table is None:
        raise ConfigError(f"a case names the table {one.table!r}, which is not ours")
    known = [(name, kind) for name, kind in zip(table.columns, table.types, strict=True) if name in one.columns]
    names, types = zip(*known, strict=True)
    token = insert_token(RunID("cases"), table, [orjson.dumps(one.columns).decode()])
    moments = {
        name: datetime.fromtimestamp(one.columns[name], UTC) for name, kind in known if kind.startswith("DateTime64")
    }
    case = one.columns["workspaceID"]
    await database.insert(table.name, names, _encoded(names, types, one.columns | moments, case), token=token)


def _encoded(names: Sequence[str], types: Sequence[str], row: Mapping[str, Any], case: str) -> list[bytes]:
    """The row in RowBinary. Raises ConfigError for a value that a rule's author gave and that does not fit."""
    try:
        return encode(names, types, [[row[name] for name in names]])
    except Unwritable as error:
        raise ConfigError(f"{case}: {error}", hint="`shipper schema show` lists the columns and their types.") from None


def moments(placed: Iterable[Placed]) -> list[int]:
    """When the events of the window were received, each moment once, oldest first."""
    return sorted({one.received_at for one in placed if one.received_at >= NOON})
