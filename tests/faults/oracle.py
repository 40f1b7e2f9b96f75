"""Judges a table after the faults: what the API issued is owed, and nothing else may be there.

It reads with the driver alone, so that a mistake of the product's own reading cannot hide one of its writing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Obligation:
    """One event that the API issued. `lane` and `effective_at` say in which windows it lies."""

    lane: str
    effective_at: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """One window of the coverage ledger, read from `drained_at` on."""

    lane: str
    start: int
    end: int
    drained_at: int


@dataclass(frozen=True, slots=True)
class Table:
    """What is in the database: `plain` and `final` are (event id, rawLog) with and without unmerged doubles."""

    plain: Sequence[tuple[str, bytes]] = ()
    final: Sequence[tuple[str, bytes]] = ()
    claims: Sequence[Claim] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Ids, by what is wrong with them. `doubled` is under FINAL and counts as guilt; `doubled_plain` alone does not.

    `unbacked` lists what the ledger claims and the table lacks: the next run would never look for it.
    """

    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    doubled_plain: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    unbacked: tuple[str, ...] = ()

    @property
    def guilty(self) -> bool:
        return bool(self.lost or self.doubled or self.invented or self.altered or self.unbacked)

    def __str__(self) -> str:
        """The counts, and the first offenders of each kind."""
        lines = []
        for name in self.__slots__:
            ids: tuple[str, ...] = getattr(self, name)
            shown = ", ".join(ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
            lines.append(f"{name} {len(ids)}" + (f": {shown}" if ids else ""))
        return "; ".join(lines)


def judge(
    obligations: Mapping[str, Obligation],
    table: Table,
    *,
    complete: bool = True,
    issued_later: Mapping[str, int] | None = None,
) -> Verdict:
    """Compare what is owed with what is there.

    Unless `complete` (the shipper ran to its end), what is missing counts as lost only where the ledger claims it.
    `issued_later` says of events that were not there from the beginning when they became visible: a read that had
    begun by then owes nothing.
    """
    visible = issued_later or {}
    there = dict(table.final)
    unbacked = tuple(
        event_id
        for event_id, owed in obligations.items()
        if event_id not in there
        and any(
            claim.lane == owed.lane
            and claim.start <= owed.effective_at < claim.end
            and visible.get(event_id, 0) < claim.drained_at
            for claim in table.claims
        )
    )
    return Verdict(
        lost=tuple(event_id for event_id in obligations if event_id not in there) if complete else unbacked,
        doubled=_twice(table.final),
        doubled_plain=_twice(table.plain),
        invented=tuple(dict.fromkeys(event_id for event_id, _ in table.plain if event_id not in obligations)),
        altered=tuple(
            dict.fromkeys(
                event_id
                for event_id, raw in (*table.plain, *table.final)
                if event_id in obligations and obligations[event_id].raw != raw
            )
        ),
        unbacked=unbacked,
    )


def _twice(rows: Sequence[tuple[str, bytes]]) -> tuple[str, ...]:
    return tuple(event_id for event_id, count in Counter(event_id for event_id, _ in rows).items() if count > 1)


def read(url: str) -> Table:
    """Read the tables of a database: `http://host:port/database`, or `chdb:DIRECTORY` that nobody holds. Blocks.

    A database without tables is empty.
    """
    client = _client(url)
    try:
        names = {row[0] for row in client.query("SHOW TABLES").result_rows}
        logs, coverage = "openai_audit_logs" in names, "openai_audit_coverage" in names
        return Table(
            plain=_rows(client, 0) if logs else (),
            final=_rows(client, 1) if logs else (),
            claims=_claims(client) if coverage else (),
        )
    finally:
        client.close()


def _client(url: str) -> Any:
    if url.startswith("chdb:"):
        return clickhouse_connect.get_client(interface="chdb", path=str(Path(url.removeprefix("chdb:"))))
    parts = urlsplit(url)
    return clickhouse_connect.get_client(host=parts.hostname, port=parts.port, database=parts.path.strip("/"))


def _rows(client: Any, final: int) -> tuple[tuple[str, bytes], ...]:
    rows = client.query(f"SELECT eventID, hex(rawLog) FROM openai_audit_logs SETTINGS final = {final}").result_rows
    return tuple((event_id, bytes.fromhex(raw)) for event_id, raw in rows)


def _claims(client: Any) -> tuple[Claim, ...]:
    sql = (
        "SELECT lane, toUnixTimestamp(windowStart), toUnixTimestamp(windowEnd), toUnixTimestamp(drainedAt)"
        " FROM openai_audit_coverage"
    )
    return tuple(Claim(*row) for row in client.query(sql).result_rows)
