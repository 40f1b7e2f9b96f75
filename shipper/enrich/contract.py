"""What an enrichment is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shipper.model import Row
from shipper.telemetry import Lookups

# MaxMind builds its databases weekly, and its licence asks for an update within 30 days of a release.
OLD_AFTER_DAYS = 30


@dataclass(frozen=True, slots=True)
class DatabaseInfo:
    """One database file as `shipper check` shows it. `built` is Unix seconds."""

    path: Path
    type: str
    built: int

    def days_old(self, now: float) -> int:
        """Whole days since it was built; 0 when the clock says that this is still to come."""
        return max(0, int(now - self.built) // 86_400)

    def is_old(self, now: float) -> bool:
        return self.days_old(now) > OLD_AFTER_DAYS


class Enrichment(Protocol):
    """Adds what is known about a row's values to the row.

    `enrich` writes in place, only to the columns this enrichment owns and to marks in `tags`. It never raises for a
    value or for a damaged database: a lookup finds, does not find, or fails, and a failed one is marked on the row.
    Enriching a row twice is the same as once. Values are looked up once for as long as they stay in a bounded cache;
    `lookups` counts these look-ups, not rows. One that failed in a part and found something in another has failed.

    `refresh` takes in files that have changed since they were read. It never raises: a file that cannot be used is
    told once, counted in `refused`, and what was read before stays in use. It may run in another thread than `enrich`;
    one call of `enrich` sees the files as they were before or as they are after, never a mixture.
    """

    @property
    def databases(self) -> tuple[DatabaseInfo, ...]: ...

    @property
    def lookups(self) -> Lookups: ...

    @property
    def refused(self) -> int: ...

    def enrich(self, rows: Sequence[Row]) -> None: ...

    def refresh(self) -> None: ...

    def close(self) -> None: ...
