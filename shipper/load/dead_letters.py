"""Dead letters: bytes that could not be a row, kept with the reason, each once.

The bytes of a letter are never changed or deleted. It is resolved once the table has a row with the id of its event:
that is a fact of its own, in a table of its own. Bytes that come again and still cannot be a row, because that row was
deleted since, take the resolution back: a row without a time in that table. The last row written about a letter counts,
so that neither clocks nor two facts of one second can hide one that is open.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from shipper.load.clickhouse import Database
from shipper.load.tables import DEAD_LETTERS, RESOLVED, insert_token
from shipper.model import DeadLetter, Lane, RunID, Source, SourceID, WorkspaceID

UNWRITABLE = "unwritable"

# Ids asked for at once: a literal each, and the server reads 256 kB of SQL.
_ASK = 2_000


# Workspace, source and id of a letter.
_Key = tuple[str, str, str]


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
    """A letter in the list: without its bytes, but with their number. `resolved_at` is 0 for one that is open.

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

    workspace_id: str = ""
    source_id: str = ""
    reason: str = ""
    id: str = ""
    resolved: bool = False
    """Also those that are resolved."""


def unwritable(event_id: str, received_at: int, raw: bytes, lane: Lane) -> Letter:
    """The letter for a row that does not fit its columns."""
    detail = f"a value of event {event_id!r} does not fit its column"
    return Letter(lane, _digest(raw), received_at, UNWRITABLE, _text(detail), raw)


@dataclass(frozen=True, slots=True)
class Looked:
    """What the tables had of some letters: workspace, source and id of those that are there, and that are resolved."""

    there: AbstractSet[_Key]
    resolved: AbstractSet[_Key]


async def look(database: Database, letters: Sequence[tuple[Source, Letter]]) -> Looked:
    """Look letters up. Once for an insert, however often that is tried: it would find what it wrote itself."""
    resolved = await _resolved(database, letters)
    return Looked(await _known(database, letters), resolved)


async def insert_letters(
    database: Database, run_id: RunID, letters: Sequence[tuple[Source, Letter]], looked: Looked
) -> list[bool]:
    """Insert the letters that were not there yet, and say of each whether it was new. A second copy of one is not.

    One that is resolved is new again: it is inserted with the time and the reason of now, and it is open afterwards.
    """
    known = {*looked.there} - looked.resolved
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
        await database.insert(DEAD_LETTERS.name, DEAD_LETTERS.columns, DEAD_LETTERS.encode(rows), token=token)
    # Last: a failure before it leaves them resolved, and whoever tries again finds them so and counts them once.
    await _reopen(database, run_id, sorted(looked.resolved))
    return new


async def _known(database: Database, letters: Sequence[tuple[Source, Letter]]) -> set[_Key]:
    """Workspace, source and id of those that the table has, resolved or not."""
    known: set[_Key] = set()
    for source, ids in _asked(letters):
        found = await database.present(
            f"SELECT id FROM openai_audit_dead_letters WHERE {_among(ids)}",  # noqa: S608 - the ids are hexadecimal
            {"workspace": source.workspace_id, "source": source.source_id},
            set(ids),
        )
        known |= {(source.workspace_id, source.source_id, one) for one in found}
    return known


async def _resolved(database: Database, letters: Sequence[tuple[Source, Letter]]) -> set[_Key]:
    """Workspace, source and id of those that are resolved, whether their letter is still there or not."""
    resolved: set[_Key] = set()
    for source, ids in _asked(letters):
        rows = await database.query(
            "SELECT id, toUnixTimestamp(resolvedAt)"  # noqa: S608 - the ids are hexadecimal
            f" FROM openai_audit_dead_letters_resolved WHERE {_among(ids)}",
            {"workspace": source.workspace_id, "source": source.source_id},
        )
        resolved |= {(source.workspace_id, source.source_id, one) for one, at in rows if at}
    return resolved


def _asked(letters: Sequence[tuple[Source, Letter]]) -> Iterator[tuple[Source, list[str]]]:
    """The ids by source, as many at once as one question holds."""
    by_source: dict[Source, set[str]] = defaultdict(set)
    for source, letter in letters:
        by_source[source].add(letter.id)
    for source, ids in by_source.items():
        ordered = sorted(ids)
        for start in range(0, len(ordered), _ASK):
            yield source, ordered[start : start + _ASK]


def _among(ids: Sequence[str]) -> str:
    literals = ", ".join(f"'{one}'" for one in ids)
    return f"workspaceID = {{workspace:String}} AND sourceID = {{source:String}} AND id IN ({literals})"


# A left join gives a letter that was never resolved the time 0, or NULL where `join_use_nulls` is set.
_CHOSEN = """
FROM openai_audit_dead_letters AS letter
LEFT JOIN openai_audit_dead_letters_resolved AS done USING (workspaceID, sourceID, id)
WHERE ({workspace:String} = '' OR workspaceID = {workspace:String})
    AND ({source:String} = '' OR sourceID = {source:String}) AND ({reason:String} = '' OR reason = {reason:String})
    AND startsWith(id, {id:String}) AND ({resolved:Bool} OR ifNull(toUnixTimestamp(resolvedAt), 0) = 0)
"""


async def count(database: Database, chosen: Filter) -> int:
    """How many letters there are."""
    [(number,)] = await database.query(f"SELECT count() {_CHOSEN}", _parameters(chosen))
    return int(number)


async def open_by_lane(database: Database, source: Source) -> dict[str, int]:
    """How many letters of a source are not resolved."""
    chosen = Filter(workspace_id=source.workspace_id, source_id=source.source_id)
    return dict(await database.query(f"SELECT lane, count() {_CHOSEN} GROUP BY lane", _parameters(chosen)))


async def entries(database: Database, chosen: Filter, *, limit: int | None = None) -> list[Entry]:
    """The letters, the newest first; all of them without a limit."""
    rows = await database.query(
        "SELECT workspaceID, sourceID, lane, id, toUnixTimestamp(receivedAt) AS at, reason, detail, length(raw),"
        f" ifNull(toUnixTimestamp(resolvedAt), 0) {_CHOSEN} ORDER BY at DESC, workspaceID, sourceID, id"
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
    """Write down that the table has rows of these letters' events. Only after it has acknowledged them."""
    keys = [(source.workspace_id, source.source_id, one) for one in ids]
    await _write_down(database, run_id, keys, now)


async def _reopen(database: Database, run_id: RunID, keys: Sequence[_Key]) -> None:
    """Take the resolution of these letters back."""
    await _write_down(database, run_id, keys, 0)


async def _write_down(database: Database, run_id: RunID, keys: Sequence[_Key], resolved_at: int) -> None:
    if not keys:
        return
    rows = [(*key, resolved_at, run_id) for key in keys]
    # The time is part of it: a run may take a resolution back and resolve the same letters again.
    token = insert_token(run_id, RESOLVED, [str(resolved_at), *("/".join(key) for key in keys)])
    await database.insert(RESOLVED.name, RESOLVED.columns, RESOLVED.encode(rows), token=token)


def _parameters(chosen: Filter) -> dict[str, object]:
    return {
        "workspace": chosen.workspace_id,
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
