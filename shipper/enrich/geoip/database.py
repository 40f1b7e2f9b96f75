"""One open MaxMind database: which reader looks up in it, and what is refused before one does.

There are two readers. maxminddb's pure Python one takes 80 to 140 µs for an address that is there and raises an error
for damage wherever it is. The C reader takes 7 to 10 µs and crashes on some damaged files, so it only gets a database
that a child process has read as a whole (`trial`). That costs 80 ns a byte, 10 s for 120 MB: as much as the pure
reader needs for a look-up per 1.5 kB. So a database is tried out after a look-up per KiB. A run that meets a few
addresses never starts a child, and none spends more than about twice the time that the better choice would have taken.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, cast

import maxminddb

from shipper.enrich.addresses import Address, NetworkTable
from shipper.enrich.contract import DatabaseInfo
from shipper.enrich.files import FileState
from shipper.enrich.geoip.copies import PrivateCopy, require_file
from shipper.enrich.geoip.trial import Trial, Verdict
from shipper.enrich.places import Record, read_record
from shipper.errors import ConfigError
from shipper.model import MAX_TIME

# What maxminddb raises for bytes that are not what they should be. Found by flipping bytes in databases.
DAMAGE = (
    maxminddb.InvalidDatabaseError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    RecursionError,
    MemoryError,
)

# Before so many look-ups not even a small database is tried out: a child process takes 0.1 s.
_FEWEST_LOOKUPS = 1000
_BYTES_PER_LOOKUP = 1024

# After so many look-ups of the pure reader what they have touched is given back: the kernel maps 64 KB around each byte
# that is read, and soon counts most of the database as memory of this process.
_LOOKUPS_MAPPED = 128

# Networks of so many look-ups are kept, then all are looked up anew. So many take about 25 MiB (measured).
_NETWORKS_KEPT = 32_768

# The families whose fields have a column. Other makers' databases in the same format name them the same way
# (`DBIP-City-Lite`), regional editions add a word (`GeoIP2-City-Europe`).
_FAMILY = re.compile(
    r"(?:^|[-=])(?:City|Enterprise|Country|ISP|ASN|Connection-Type|Anonymous-IP|Anonymous-Plus|IP-Risk)(?:$|[-\s)])"
)

# Looked up once when a database is opened, so that a file whose search tree is damaged is refused at the start.
_PROBES = ("1.1.1.1", "8.8.8.8", "2001:4860:4860::8888")


class _Mapped:
    """A copy mapped into memory. To maxminddb it is a file, as its own reader of maps keeps the map to itself."""

    def __init__(self, copy: PrivateCopy) -> None:
        # Opened anew, to be read only: not every kernel lets a sealed file be mapped that is open for writing.
        with copy.path.open("rb") as file:
            self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read(self) -> mmap.mmap:
        return self._pages

    def give_back(self) -> None:
        """Let go of the pages that were read; those that are read again come back by themselves."""
        # A system may not have it, or refuse. Then there is only more memory in use.
        if hasattr(mmap, "MADV_DONTNEED"):
            with suppress(OSError):
                self._pages.madvise(mmap.MADV_DONTNEED)


class Database:
    """One open .mmdb file, looked up through the pure reader until a trial has found it sound, then through C."""

    def __init__(
        self, info: DatabaseInfo, ip_version: int, copy: PrivateCopy, reader: maxminddb.Reader, mapped: _Mapped
    ) -> None:
        self.info = info
        self.trial_after = max(_FEWEST_LOOKUPS, copy.size // _BYTES_PER_LOOKUP)
        self.verdict: Verdict | None = None
        self._ip_version = ip_version
        self._copy = copy
        self._reader = reader
        self._mapped: _Mapped | None = mapped
        self._trial: Trial | None = None
        self._lookups = 0
        # A record is that of a network, and many addresses share one.
        self._networks: NetworkTable[Record | None] = NetworkTable()

    @property
    def state(self) -> FileState:
        """The file's, when it was copied."""
        return self._copy.state

    def find(self, address: Address) -> Record | None:
        """The record, or None when the database has none. Raises one of DAMAGE when it cannot be read."""
        if address.version > self._ip_version:
            return None
        found = self._networks.find(address)
        if found:
            return found[0]
        self._lookups += 1
        # Read once: `learn`, in another thread, lets go of it.
        mapped = self._mapped
        if mapped is not None and self._lookups % _LOOKUPS_MAPPED == 0:
            mapped.give_back()
        if self._lookups % _NETWORKS_KEPT == 0:
            self._networks = NetworkTable()
        raw, prefix = self._reader.get_with_prefix_len(address)
        record = None if raw is None else read_record(raw)
        self._networks.add(ip_network((address, prefix), strict=False), record)
        return record

    def try_when_due(self) -> Verdict | None:
        """Begin the trial once there were enough look-ups. The verdict, when this call was the first to learn it."""
        if self._trial is None and self.verdict is None and self._lookups >= self.trial_after:
            self.begin_trial()
        return self.learn() if self._trial is not None else None

    def begin_trial(self) -> None:
        self._trial = Trial(self._copy)

    def learn(self, *, wait: bool = False) -> Verdict | None:
        """The verdict of the trial that was begun, None while it goes on. After SOUND the C reader takes over."""
        if self._trial is not None:
            self.verdict = self._trial.wait() if wait else self._trial.verdict()
            if self.verdict is not None:
                self._trial = None
                if self.verdict is Verdict.SOUND:
                    # It opened in the child. Should this process be short of something, the pure reader goes on.
                    with suppress(OSError, *DAMAGE):
                        self._reader = maxminddb.open_database(self._copy.path, maxminddb.MODE_MMAP_EXT)
                        self._mapped = None
                self._copy.close()
        return self.verdict

    def close(self) -> None:
        if self._trial is not None:
            self._trial.close()
        self._copy.close()
        self._reader.close()


def open_database(path: Path) -> Database:
    """Copy a database and look into it. Raises ConfigError when it is not one whose fields have columns."""
    copy = _copy(path)
    try:
        mapped = _Mapped(copy)
        reader = maxminddb.open_database(cast("Any", mapped), maxminddb.MODE_FD)
    except OSError as error:
        raise _not_readable(path, error) from None
    except DAMAGE as error:
        raise not_usable(path, "not a MaxMind DB file") from error
    info, version = _read_metadata(path, reader)
    database = Database(info, version, copy, reader, mapped)
    try:
        for probe in _PROBES:
            database.find(ip_address(probe))
    except DAMAGE as error:
        raise not_usable(path, "a look-up in it fails, so it is damaged") from error
    return database


def try_out(paths: Iterable[Path]) -> list[tuple[DatabaseInfo, Verdict]]:
    """Read every record of every database, whatever time that takes. Raises ConfigError as open_database."""
    with ExitStack() as opened:
        databases = []
        for path in paths:
            databases.append(open_database(path))
            opened.callback(databases[-1].close)
            databases[-1].begin_trial()
        return [(database.info, database.learn(wait=True) or Verdict.UNDECIDED) for database in databases]


def read_info(path: Path) -> DatabaseInfo:
    """What a database says of itself, without a copy and without a look-up. Raises ConfigError as open_database."""
    try:
        found = path.stat()
        require_file(path, found)
        if not found.st_size:
            raise not_usable(path, "not a MaxMind DB file")
        with maxminddb.open_database(path, maxminddb.MODE_FILE) as reader:
            return _read_metadata(path, reader)[0]
    except OSError as error:
        raise _not_readable(path, error) from None
    except DAMAGE as error:
        raise not_usable(path, "not a MaxMind DB file") from error


def not_usable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"cannot use the GeoIP database {path}: {reason}",
        hint="Name the unpacked .mmdb file (MaxMind packs it in a .tar.gz); if it is that, download it again.",
    )


def _copy(path: Path) -> PrivateCopy:
    try:
        return PrivateCopy(path)
    except OSError as error:
        raise _not_readable(path, error) from None


def _not_readable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot read the GeoIP database {path}: {error.strerror or 'unreadable'}",
        hint="Set geoip_databases to .mmdb files that exist and that this user may read.",
    )


def _read_metadata(path: Path, reader: maxminddb.Reader) -> tuple[DatabaseInfo, int]:
    # The reader takes whatever types the file has.
    metadata: Any = reader.metadata()
    family, built, version = metadata.database_type, metadata.build_epoch, metadata.ip_version
    if not (isinstance(family, str) and isinstance(built, int) and 0 <= built <= MAX_TIME and version in {4, 6}):
        raise not_usable(path, "its metadata is damaged")
    if _FAMILY.search(family) is None:
        raise ConfigError(
            f"cannot use the GeoIP database {path}: type {family[:80]!r} has no field that a column takes",
            hint="Use City, Enterprise, Country, ISP, ASN, Connection-Type, Anonymous-IP, Anonymous-Plus or IP-Risk.",
        )
    return DatabaseInfo(path, family, built), version
