"""Adds to a row what databases and lists know about its values.

One more enrichment is one more module that satisfies `Enrichment`, and its opener in the line of OPENERS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from shipper.config import Settings
from shipper.enrich.contract import DatabaseInfo, Enrichment
from shipper.enrich.geoip import open_geoip
from shipper.enrich.lists import open_lists
from shipper.model import Row

__all__ = ["DatabaseInfo", "Enricher", "Enrichment", "open_enricher"]

# In the order they run. An opener returns None when nothing is configured for it, and raises ConfigError.
OPENERS: tuple[Callable[[Settings], Enrichment | None], ...] = (
    open_geoip,
    open_lists,
)


class Enricher:
    """All enrichments, one after the other, under the contract of `Enrichment`."""

    def __init__(self, enrichments: Sequence[Enrichment]) -> None:
        self._enrichments = tuple(enrichments)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def databases(self) -> tuple[DatabaseInfo, ...]:
        return tuple(info for enrichment in self._enrichments for info in enrichment.databases)

    @property
    def lookups(self) -> int:
        return sum(enrichment.lookups for enrichment in self._enrichments)

    @property
    def failed(self) -> int:
        return sum(enrichment.failed for enrichment in self._enrichments)

    def enrich(self, rows: Sequence[Row]) -> None:
        """Fill, in place, the src* columns, `enrichments` and marks in `tags`. Never raises for a row's content."""
        for enrichment in self._enrichments:
            enrichment.enrich(rows)

    def close(self) -> None:
        with ExitStack() as stack:
            for enrichment in self._enrichments:
                stack.callback(enrichment.close)


def open_enricher(settings: Settings) -> Enricher:
    """Open every configured database and list. Raises ConfigError, naming the file, for one that cannot be used."""
    with ExitStack() as opened:
        enrichments = []
        for open_one in OPENERS:
            if (enrichment := open_one(settings)) is not None:
                opened.callback(enrichment.close)
                enrichments.append(enrichment)
        opened.pop_all()
    return Enricher(enrichments)
