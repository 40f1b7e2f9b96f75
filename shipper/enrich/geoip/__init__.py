"""GeoIP: fills the src* columns from MaxMind databases and marks addresses that no public client can have.

The databases are read through maxminddb's pure Python reader, each from a copy in memory. The C reader is about ten
times faster per look-up (9 µs against 100 µs), but it maps the file, so overwriting the file in place kills the
process, and it crashes on some damaged files, measured by flipping bytes. A look-up happens once per distinct address;
that is cheap enough to be safe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import maxminddb

from shipper.config import Settings
from shipper.enrich.addresses import Address, parse_address, reserved_kind
from shipper.enrich.contract import DatabaseInfo
from shipper.enrich.places import NOWHERE, Place, Record, merge, merge_records, read_place, read_record, write_place
from shipper.errors import ConfigError
from shipper.model import MAX_TIME, Row

CACHE_SIZE = 65_536

RESERVED_TAG = "srcIPReserved"
FAILED_TAG = "geoipFailed"

# What maxminddb raises for bytes that are not what they should be. Found by flipping bytes in databases.
_DAMAGE = (maxminddb.InvalidDatabaseError, ValueError, TypeError, LookupError, OverflowError)

# The families whose fields have a column. Other makers' databases in the same format name them the same way
# (`DBIP-City-Lite`), regional editions add a word (`GeoIP2-City-Europe`).
_FAMILY = re.compile(
    r"(?:^|[-=])(?:City|Enterprise|Country|ISP|ASN|Connection-Type|Anonymous-IP|Anonymous-Plus|IP-Risk)(?:$|[-\s)])"
)

# Looked up once when a database is opened, so that a file whose search tree is damaged is refused at the start.
_PROBES = ("1.1.1.1", "8.8.8.8", "2001:4860:4860::8888")


@dataclass(frozen=True, slots=True)
class Database:
    """One open .mmdb file."""

    info: DatabaseInfo
    ip_version: int
    reader: maxminddb.Reader

    def find(self, address: Address) -> Record | None:
        """The record, or None when the database has none. Raises one of _DAMAGE when it cannot be read."""
        if address.version > self.ip_version:
            return None
        record = self.reader.get(address)
        return None if record is None else read_record(record)


class Finding(NamedTuple):
    """All there is to know about one address. `failed` names the databases that could not be read for it."""

    place: Place = NOWHERE
    reserved: str = ""
    failed: str = ""


class GeoIP:
    """The enrichment. Without databases it still marks reserved addresses."""

    def __init__(self, databases: Sequence[Database] = (), *, cache_size: int = CACHE_SIZE) -> None:
        self._databases = tuple(databases)
        self._find = lru_cache(cache_size)(self._look_up)
        # The API mostly tells the same about the same address, so the last layer is merged once as well.
        self._merge = lru_cache(cache_size)(merge)
        self._lookups = 0
        self._failed = 0

    @property
    def databases(self) -> tuple[DatabaseInfo, ...]:
        return tuple(database.info for database in self._databases)

    @property
    def lookups(self) -> int:
        return self._lookups

    @property
    def failed(self) -> int:
        return self._failed

    def enrich(self, rows: Sequence[Row]) -> None:
        for row in rows:
            if not row.srcIP:
                continue
            place, reserved, failed = self._find(row.srcIP)
            if place is not NOWHERE:
                write_place(row, self._merge(place, read_place(row)))
            if reserved:
                row.tags = {**row.tags, RESERVED_TAG: reserved}
            if failed:
                row.tags = {**row.tags, FAILED_TAG: failed}

    def close(self) -> None:
        for database in self._databases:
            database.reader.close()

    def _look_up(self, text: str) -> Finding:
        address = parse_address(text)
        if address is None:
            return Finding()
        if reserved := reserved_kind(address):
            return Finding(reserved=reserved)
        if not self._databases:
            return Finding()
        self._lookups += 1
        records: list[Record] = []
        failed: list[str] = []
        for database in self._databases:
            try:
                record = database.find(address)
            except _DAMAGE:
                failed.append(database.info.type)
            else:
                if record is not None:
                    records.append(record)
        self._failed += bool(failed)
        place = merge_records(records)
        return Finding(NOWHERE if place == NOWHERE else place, failed=",".join(failed))


def open_geoip(settings: Settings) -> GeoIP:
    """The enrichment with the configured databases. Raises ConfigError for one that cannot be used."""
    return GeoIP([open_database(path) for path in settings.geoip_databases])


def open_database(path: Path) -> Database:
    """Copy a database into memory and look into it. Raises ConfigError when it is not one whose fields have columns."""
    reader = _open_reader(path)
    # The reader takes whatever types the file has.
    metadata: Any = reader.metadata()
    family, built, version = metadata.database_type, metadata.build_epoch, metadata.ip_version
    if not (isinstance(family, str) and isinstance(built, int) and 0 <= built <= MAX_TIME and version in {4, 6}):
        raise _not_usable(path, "its metadata is damaged")
    if _FAMILY.search(family) is None:
        raise ConfigError(
            f"cannot use the GeoIP database {path}: type {family[:80]!r} has no field that a column takes",
            hint="Use City, Enterprise, Country, ISP, ASN, Connection-Type, Anonymous-IP, Anonymous-Plus or IP-Risk.",
        )
    database = Database(DatabaseInfo(path, family, built), version, reader)
    try:
        for probe in _PROBES:
            database.find(ip_address(probe))
    except _DAMAGE as error:
        raise _not_usable(path, "a look-up in it fails, so it is damaged") from error
    return database


def _open_reader(path: Path) -> maxminddb.Reader:
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"cannot read the GeoIP database {path}: not a regular file")
        return maxminddb.open_database(path, maxminddb.MODE_MEMORY)
    except OSError as error:
        raise ConfigError(
            f"cannot read the GeoIP database {path}: {error.strerror or 'unreadable'}",
            hint="Set geoip_databases to .mmdb files that exist and that this user may read.",
        ) from None
    except _DAMAGE as error:
        raise _not_usable(path, "not a MaxMind DB file") from error


def _not_usable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"cannot use the GeoIP database {path}: {reason}",
        hint="Name the unpacked .mmdb file (MaxMind packs it in a .tar.gz); if it is that, download it again.",
    )
