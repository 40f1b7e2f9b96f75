"""`shipper dead-letters`: what could not be a row is listed, shown, and sent through the stages again."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from shipper.config import Settings
from shipper.errors import UsageError
from shipper.load import dead_letters, schema
from shipper.load.clickhouse import Database, connect
from shipper.load.dead_letters import Entry, Filter
from shipper.model import Lane, Source
from shipper.run import Run

_ID = re.compile(r"[0-9a-f]{6,64}")


@dataclass(frozen=True, slots=True)
class Listing:
    """The newest letters of all those that were asked for."""

    entries: list[Entry]
    total: int


@dataclass(frozen=True, slots=True)
class Shown:
    """The bytes of a letter, exactly, and each source that has it."""

    entries: list[Entry]
    raw: bytes


async def list_letters(settings: Settings, chosen: Filter, limit: int) -> Listing:
    """What there is, the newest first. A database without our tables has none."""
    async with _connected(settings) as database:
        if not await schema.applied(database):
            return Listing([], 0)
        return Listing(
            await dead_letters.entries(database, chosen, limit=limit), await dead_letters.count(database, chosen)
        )


async def show_letter(settings: Settings, chosen: Filter) -> Shown:
    """One letter, resolved or not. Raises UsageError unless the id names exactly one."""
    async with _connected(settings) as database:
        await schema.require(database)
        found = await _named(database, replace(chosen, resolved=True))
        raw = await dead_letters.read(database, found[0].source, [found[0].id])
        return Shown(found, raw[found[0].id])


async def replay_letters(run: Run, ids: Sequence[str], chosen: Filter) -> None:
    """Replay the open letters with these ids, or all that are chosen when there are none. Raises UsageError."""
    found: list[Entry] = []
    for one in ids:
        found += await _named(run.database, replace(chosen, id=one))
    if not ids:
        found = await dead_letters.entries(run.database, chosen)
    # Only the configured ones know their retention.
    configured = {(source.workspace, source.id): source.source for source in run.settings.all_sources()}
    by_source: dict[Source, dict[str, Lane]] = defaultdict(dict)
    for entry in found:
        key = (str(entry.source.workspace_id), str(entry.source.source_id))
        by_source[configured.get(key, entry.source)][entry.id] = entry.lane
    await run.replay_letters({source: [(lane, one) for one, lane in its.items()] for source, its in by_source.items()})


async def _named(database: Database, chosen: Filter) -> list[Entry]:
    """The letter with this id or beginning of one, once per source that has it."""
    if not _ID.fullmatch(chosen.id):
        raise UsageError(
            f"{chosen.id!r} is not the id of a dead letter",
            hint="Expected at least 6 hexadecimal digits from `shipper dead-letters list`.",
        )
    found = await dead_letters.entries(database, chosen)
    several = {entry.id for entry in found}
    if len(several) > 1:
        raise UsageError(
            f"{len(several)} dead letters have an id that begins with {chosen.id}", hint="Give more of it."
        )
    if not several:
        kind = "dead letter" if chosen.resolved else "dead letter that is not resolved"
        raise UsageError(f"no {kind} has an id that begins with {chosen.id}", hint="`shipper dead-letters list --all`")
    return found


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Database]:
    database = await connect(settings)
    try:
        yield database
    finally:
        await database.close()
