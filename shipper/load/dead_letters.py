"""Dead letters: bytes that could not be a row, kept with the reason, each once."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from shipper.load.clickhouse import Database
from shipper.load.tables import DEAD_LETTERS, insert_token
from shipper.model import DeadLetter, Lane, Row, RunID, Source

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


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _text(value: str) -> str:
    """The text without what UTF-8 cannot hold: a lone surrogate in a dead letter must not kill the letter too."""
    return value.encode("utf-8", errors="backslashreplace").decode("utf-8")
