"""Adds to a row what databases and lists know about its values.

One more enrichment is one more module that satisfies `Enrichment`, and its opener in the line of OPENERS.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from shipper.config import Settings
from shipper.enrich.contract import OLD_AFTER_DAYS, DatabaseInfo, Enrichment
from shipper.enrich.geoip import Verdict, open_geoip, read_info, try_out
from shipper.enrich.lists import open_lists
from shipper.model import Row, iso
from shipper.telemetry import Lookups, logger

__all__ = [
    "OLD_AFTER_DAYS",
    "DatabaseInfo",
    "Enricher",
    "Enrichment",
    "Verdict",
    "open_enricher",
    "read_info",
    "try_out",
]

# In the order they run. An opener returns None when nothing is configured for it, and raises ConfigError.
OPENERS: tuple[Callable[[Settings], Enrichment | None], ...] = (
    open_geoip,
    open_lists,
)

# Seconds between two looks at the files, at least.
REFRESH_EVERY = 1.0


class Enricher:
    """All enrichments, one after the other, under the contract of `Enrichment`."""

    def __init__(self, enrichments: Sequence[Enrichment], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._enrichments = tuple(enrichments)
        self._clock = clock
        self._due = clock() + REFRESH_EVERY
        self._refreshing = threading.Lock()
        self._closed = False
        self._told: set[DatabaseInfo] = set()

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
    def lookups(self) -> Lookups:
        return sum((enrichment.lookups for enrichment in self._enrichments), Lookups())

    @property
    def refused(self) -> int:
        """Changed files that could not be used."""
        return sum(enrichment.refused for enrichment in self._enrichments)

    def enrich(self, rows: Sequence[Row]) -> None:
        """Fill, in place, the src* columns, `enrichments` and marks in `tags`. Never raises for a row's content."""
        for enrichment in self._enrichments:
            enrichment.enrich(rows)

    async def refresh(self) -> None:
        """Take in files that have changed. Call it as often as you like: the files are looked at once a second.

        Reading a large file takes a while, so it is done in a thread; rows may be enriched meanwhile.
        """
        now = self._clock()
        if now >= self._due:
            self._due = now + REFRESH_EVERY
            await asyncio.to_thread(self._refresh)

    def tell_old(self, now: float) -> None:
        """Warn of databases built more than 30 days before `now`, each once."""
        old = [info for info in self.databases if info.is_old(now) and info not in self._told]
        self._told.update(old)
        if old:
            logger().warning(
                f"GeoIP databases are older than {OLD_AFTER_DAYS} days",
                databases={str(info.path): f"{info.type} of {iso(info.built)[:10]}" for info in old},
                hint="Update them; addresses change hands.",
            )

    def close(self) -> None:
        with self._refreshing, ExitStack() as stack:
            self._closed = True
            for enrichment in self._enrichments:
                stack.callback(enrichment.close)

    def _refresh(self) -> None:
        # Whoever finds another at it has nothing left to do.
        if self._refreshing.acquire(blocking=False):
            try:
                # A thread may come to it after its caller was cancelled and everything closed.
                for enrichment in () if self._closed else self._enrichments:
                    enrichment.refresh()
            finally:
                self._refreshing.release()


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
