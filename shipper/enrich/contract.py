"""What an enrichment is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shipper.model import Row


@dataclass(frozen=True, slots=True)
class DatabaseInfo:
    """One database file as `shipper check` shows it. `built` is Unix seconds."""

    path: Path
    type: str
    built: int


class Enrichment(Protocol):
    """Adds what is known about a row's values to the row.

    `enrich` writes in place, only to the columns this enrichment owns and to marks in `tags`. It never raises for a
    value or for a damaged database: a lookup finds, does not find, or fails, and a failed one is counted in `failed`
    and marked on the row. Enriching a row twice is the same as once. Values are looked up once for as long as they
    stay in a bounded cache; `lookups` and `failed` count these look-ups, not rows.
    """

    @property
    def databases(self) -> tuple[DatabaseInfo, ...]: ...

    @property
    def lookups(self) -> int: ...

    @property
    def failed(self) -> int: ...

    def enrich(self, rows: Sequence[Row]) -> None: ...

    def close(self) -> None: ...
