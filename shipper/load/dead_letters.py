"""Dead letters: bytes that could not be a row, kept with the reason, each once.

A letter is never changed or deleted. That its event has become a row since is a fact of its own, in a table of its own.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from shipper.load.clickhouse import Database
from shipper.load.tables import DEAD_LETTERS, RESOLVED, insert_token
from shipper.model import DeadLetter, Lane, Row, RunID, Source, SourceID, WorkspaceID

UNWRITABLE = "unwritable"

# Ids asked for at once: a literal each, and the server reads 256 kB of SQL.
_ASK = 2_000


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it is stored. `id` is the SHA-256 of `raw`."""

    lane: Lane
    id: str
    received_at: int
    reason: str
    detail: str
    raw: bytes

    @classmethod
    def of(cls, letter: DeadLetter) -> Letter:
        event = letter.event
        return cls(event.lane, _digest(event.raw), event.received_at, letter.reason, letter.detail, event.raw)


@dataclass(frozen=True, slots=True)
class Entry:
    """A letter in the list: without its bytes, but with their number. `resolved_at` is 0 for one that is still open.

    The retention of its source is not known here.
    """

    source: Source
    lane: Lane
    id: str
    received_at: int
    reason: str
    detail: str
    size: int
    resolved_at: int


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters: every condition that is not empty holds. `id` is an id or its beginning."""

    source_id: str = ""
    reason: str = ""
    id: str = ""
    resolved: bool = False
    """Also those that are resolved."""


def unwritable(row: Row, lane: Lane) -> Letter:
    """The letter for a row that does not fit its columns."""
    detail = f"a value of event {row.eventID!r} does not fit its column"
    return Letter(lane, _digest(row.rawLog), row.receivedAt, UNWRITABLE, _text(detail), row.rawLog)


async def insert_letters(database: Database, run_id: RunID, letters: Sequence[tuple[Source, Letter]]) -> list[bool]:
    """Insert the letters that are not there yet, and say of each whether it was new. A second copy of one is not."""
    known = await _known(database, letters)
    new: list[bool] = []
    rows: list[tuple[object, ...]] = []
    for source, letter in letters:
        key = (source.workspace_id, source.source_id, letter.id)
        new.append(key not in known)
        if key not in known:
            known.add(key)
            rows.append(
                (
                    *(source.workspace_id, source.source_id, str(letter.lane), letter.id, letter.received_at),
                    *(_text(letter.reason), _text(letter.detail), letter.raw, run_id),
                )
            )
    if rows:
        token = insert_token(run_id, DEAD_LETTERS, (f"{row[0]}/{row[1]}/{row[3]}" for row in rows))
        data = list(zip(*rows, strict=True))
        await database.insert(DEAD_LETTERS.name, DEAD_LETTERS.columns, DEAD_LETTERS.types, data, token=token)
    return new


async def _known(database: Database, letters: Sequence[tuple[Source, Letter]]) -> set[tuple[str, str, str]]:
    by_source: dict[tuple[str, str], set[str]] = defaultdict(set)
    for source, letter in letters:
        by_source[source.workspace_id, source.source_id].add(letter.id)
    known: set[tuple[str, str, str]] = set()
    for (workspace, source_id), ids in by_source.items():
        ordered = sorted(ids)
        for start in range(0, len(ordered), _ASK):
            asked = ordered[start : start + _ASK]
            literals = ", ".join(f"'{one}'" for one in asked)
            found = await database.present(
                "SELECT id FROM openai_audit_dead_letters"  # noqa: S608 - the ids are hexadecimal
                f" WHERE workspaceID = {{workspace:String}} AND sourceID = {{source:String}} AND id IN ({literals})",
                {"workspace": workspace, "source": source_id},
                set(asked),
            )
            known |= {(workspace, source_id, one) for one in found}
    return known


_CHOSEN = """
FROM openai_audit_dead_letters AS letter
LEFT JOIN openai_audit_dead_letters_resolved AS done USING (workspaceID, sourceID, id)
WHERE ({source:String} = '' OR sourceID = {source:String}) AND ({reason:String} = '' OR reason = {reason:String})
    AND startsWith(id, {id:String}) AND ({resolved:Bool} OR resolvedAt = 0)
"""


async def count(database: Database, chosen: Filter) -> int:
    """How many letters there are."""
    [(number,)] = await database.query(f"SELECT count() {_CHOSEN}", _parameters(chosen))
    return int(number)


async def entries(database: Database, chosen: Filter, *, limit: int | None = None) -> list[Entry]:
    """The letters, the newest first; all of them without a limit."""
    rows = await database.query(
        "SELECT workspaceID, sourceID, lane, id, toUnixTimestamp(receivedAt) AS at, reason, detail, length(raw),"
        f" toUnixTimestamp(resolvedAt) {_CHOSEN} ORDER BY at DESC, workspaceID, sourceID, id"
        + (f" LIMIT {limit:d}" if limit is not None else ""),
        _parameters(chosen),
    )
    return [
        Entry(Source(WorkspaceID(workspace), SourceID(source)), Lane(lane), *rest)
        for workspace, source, lane, *rest in rows
    ]


async def read(database: Database, source: Source, ids: Sequence[str]) -> dict[str, bytes]:
    """The bytes of these letters of a source, by id. Give few: they are all held in memory."""
    rows = await database.query(
        "SELECT id, hex(raw) FROM openai_audit_dead_letters"
        " WHERE workspaceID = {workspace:String} AND sourceID = {source:String} AND id IN {ids:Array(String)}",
        {"workspace": source.workspace_id, "source": source.source_id, "ids": list(ids)},
    )
    return {id_: bytes.fromhex(raw) for id_, raw in rows}


async def resolve(database: Database, run_id: RunID, source: Source, ids: Sequence[str], now: int) -> None:
    """Write down that the events of these letters are rows now. Only after the table has acknowledged them."""
    if not ids:
        return
    size = len(ids)
    data: list[list[object]] = [
        [source.workspace_id] * size,
        [source.source_id] * size,
        list(ids),
        [now] * size,
        [run_id] * size,
    ]
    token = insert_token(run_id, RESOLVED, (source.workspace_id, source.source_id, *ids))
    await database.insert(RESOLVED.name, RESOLVED.columns, RESOLVED.types, data, token=token)


def _parameters(chosen: Filter) -> dict[str, object]:
    return {
        "source": chosen.source_id,
        "reason": chosen.reason,
        "id": chosen.id,
        "resolved": chosen.resolved,
    }


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _text(value: str) -> str:
    """The text without what UTF-8 cannot hold: a lone surrogate in a dead letter must not kill the letter too."""
    return value.encode("utf-8", errors="backslashreplace").decode("utf-8")
