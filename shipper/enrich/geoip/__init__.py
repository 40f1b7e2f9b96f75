"""GeoIP: fills the src* columns from MaxMind databases and marks addresses that no public client can have.

A database is read from a private copy (`copies`), through a reader that cannot crash on it (`database`, `trial`), and
replaced when its file changes. A new file is tried out as a whole before it replaces anything; one that is refused, or
that could not be tried out, changes nothing. Only where there is no C reader, which a bad file could crash, a new file
is taken on the word of its metadata and its first look-ups.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from shipper.config import Settings
from shipper.enrich.addresses import parse_address, reserved_kind
from shipper.enrich.contract import DatabaseInfo
from shipper.enrich.files import WatchedFile
from shipper.enrich.geoip.database import DAMAGE, Database, not_usable, open_database, read_info, try_out
from shipper.enrich.geoip.trial import Verdict
from shipper.enrich.places import NOWHERE, Record, merge, merge_records
from shipper.errors import ConfigError
from shipper.model import Place, Row
from shipper.telemetry import Lookups, logger

__all__ = ["TRY_AGAIN_AFTER", "Database", "GeoIP", "Verdict", "open_database", "open_geoip", "read_info", "try_out"]

CACHE_SIZE = 65_536

# Events share the place that they tell of while normalize remembers it. Twice as many as it remembers, since a place
# that one event only tells of takes room here too.
_PLACES = 32_768

RESERVED_TAG = "srcIPReserved"
FAILED_TAG = "geoipFailed"

# Seconds after which a changed file that could not be tried out is tried again. A trial that runs into its limit keeps
# a processor busy for two minutes.
TRY_AGAIN_AFTER = 1800.0


class Finding(NamedTuple):
    """All there is to know about one address. `failed` names the databases that could not be read for it."""

    place: Place = NOWHERE
    reserved: str = ""
    failed: str = ""


class Generation:
    """The databases of one moment with what was looked up in them. Replaced as a whole, never changed."""

    def __init__(self, databases: Sequence[Database], cache_size: int) -> None:
        self.databases = tuple(databases)
        self._made = 0
        self._found = 0
        self._failed = 0
        self.find = lru_cache(cache_size)(self._look_up)
        # What was told, what came of it, and the marks: by the id of what was told. The entry keeps that alive, so no
        # other place can get its id. To find it by its ten fields would take longer than all else here.
        self._merged: dict[int, tuple[Place, Place, dict[str, str]]] = {}

    @property
    def lookups(self) -> Lookups:
        return Lookups(self._made, self._found, self._failed)

    def _look_up(self, text: str) -> Finding:
        address = parse_address(text)
        if address is None:
            return Finding()
        if reserved := reserved_kind(address):
            return Finding(reserved=reserved)
        if not self.databases:
            return Finding()
        self._made += 1
        records: list[Record] = []
        failed: list[str] = []
        for database in self.databases:
            try:
                record = database.find(address)
            except DAMAGE:
                failed.append(database.info.type)
            else:
                if record is not None:
                    records.append(record)
        place = merge_records(records)
        if failed:
            self._failed += 1
        elif place != NOWHERE:
            self._found += 1
        return Finding(NOWHERE if place == NOWHERE else place, failed=",".join(failed))

    def enrich(self, rows: Sequence[Row]) -> None:
        """Put what is known about an address beside what the event told of its place, and set the marks."""
        merged = self._merged
        for row in rows:
            if row.place.ip:
                _, row.place, marks = merged.get(id(row.place)) or self._merge(row.place)
                if marks:
                    row.tags = {**row.tags, **marks}

    def _merge(self, told: Place) -> tuple[Place, Place, dict[str, str]]:
        place, reserved, failed = self.find(told.ip)
        marks = {RESERVED_TAG: reserved, FAILED_TAG: failed}
        merged = (
            told,
            told if place is NOWHERE else merge(place, told),
            {name: mark for name, mark in marks.items() if mark},
        )
        if len(self._merged) >= _PLACES:
            self._merged.clear()
        self._merged[id(told)] = merged
        return merged


class WatchedDatabase:
    """The database in use for one path, and the one that may replace it while that is being tried out."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.current = database
        self.refused = 0
        self._clock = clock
        self._file = WatchedFile(database.info.path, database.state)
        self._candidate: Database | None = None
        self._again_at: float | None = None
        self._told = False

    def refresh(self) -> bool:
        """Go one step: begin or end a trial, or read a changed file. True when `current` is another one."""
        if self._file.changed():
            self._file.take()
            self._told = False
            self._begin()
        elif self._again_at is not None and self._clock() >= self._again_at:
            self._begin()
        if self._candidate is not None:
            return self._decide(self._candidate)
        verdict = self.current.try_when_due()
        if verdict in (Verdict.DAMAGED, Verdict.CRASHED):
            logger().warning(
                "the GeoIP database is damaged; what can be read of it stays in use",
                path=str(self.current.info.path),
                reason=verdict.value,
                hint="Download it again.",
            )
        return False

    def close(self) -> None:
        self.current.close()
        if self._candidate is not None:
            self._candidate.close()

    def _begin(self) -> None:
        """Open the file that is there now and begin its trial; it takes the place of a candidate before it."""
        if self._candidate is not None:
            self._candidate.close()
            self._candidate = None
        self._again_at = None
        try:
            self._candidate = open_database(self._file.path)
        except ConfigError as error:
            self._refuse(error)
        else:
            self._candidate.begin_trial()

    def _decide(self, candidate: Database) -> bool:
        verdict = candidate.learn()
        if verdict is None:
            return False
        self._candidate = None
        if verdict in (Verdict.DAMAGED, Verdict.CRASHED):
            candidate.close()
            self._refuse(not_usable(self._file.path, verdict.value))
            return False
        if verdict is Verdict.UNDECIDED:
            candidate.close()
            self._put_off()
            return False
        # The old one is not closed: another thread may be in the middle of a look-up. It goes with its last user.
        self.current = candidate
        logger().info(
            "GeoIP database replaced",
            path=str(candidate.info.path),
            type=candidate.info.type,
            built=candidate.info.built,
        )
        return True

    def _put_off(self) -> None:
        """The trial gave no answer: a file that may be damaged does not replace one that works."""
        self._again_at = self._clock() + TRY_AGAIN_AFTER
        if self._told:
            return
        self._told = True
        self.refused += 1
        logger().warning(
            "a changed GeoIP database could not be tried out; the one before it stays in use",
            path=str(self._file.path),
            hint=f"It is tried again every {TRY_AGAIN_AFTER / 60:.0f} minutes and when it changes. "
            "`shipper check` tries it now.",
        )

    def _refuse(self, error: ConfigError) -> None:
        self.refused += 1
        logger().warning(
            "a changed GeoIP database is not usable; the one before it stays in use", reason=str(error), hint=error.hint
        )


class GeoIP:
    """The enrichment. Without databases it still marks reserved addresses."""

    def __init__(
        self,
        databases: Sequence[Database] = (),
        *,
        cache_size: int = CACHE_SIZE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watched = tuple(WatchedDatabase(database, clock=clock) for database in databases)
        self._cache_size = cache_size
        self._generation = Generation(databases, cache_size)
        self._lookups = Lookups()

    @property
    def databases(self) -> tuple[DatabaseInfo, ...]:
        return tuple(database.info for database in self._generation.databases)

    @property
    def lookups(self) -> Lookups:
        return self._lookups + self._generation.lookups

    @property
    def refused(self) -> int:
        return sum(watched.refused for watched in self._watched)

    def enrich(self, rows: Sequence[Row]) -> None:
        self._generation.enrich(rows)

    def refresh(self) -> None:
        replaced = [watched.refresh() for watched in self._watched]
        if any(replaced):
            old = self._generation
            self._generation = Generation([watched.current for watched in self._watched], self._cache_size)
            self._lookups += old.lookups

    def close(self) -> None:
        for watched in self._watched:
            watched.close()


def open_geoip(settings: Settings) -> GeoIP:
    """The enrichment with the configured databases. Raises ConfigError for one that cannot be used."""
    return GeoIP([open_database(path) for path in settings.geoip_databases])
