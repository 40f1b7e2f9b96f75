"""The embedded engine, chDB: ClickHouse inside this process, its data in a directory.

The engine holds its directory alone, so that a second process has to wait for the first. Its calls block, so they run
on one thread of their own.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.exceptions import DatabaseError as DriverDatabaseError

from shipper.errors import ConfigError, DatabaseBusy, DatabaseError, NoDatabase
from shipper.load.answers import (
    INSERT,
    INTEGER_TIMES,
    NEWER_INSERT,
    PERSON,
    PINNED,
    READ,
    RULE,
    json_array,
    json_table,
    known_to,
    limited,
)
from shipper.load.faults import code_of, translate, translated
from shipper.load.retry import Sleep
from shipper.load.rowbinary import chunks

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_T = TypeVar("_T")

_POLL = 0.2

# The engine acknowledges an insert, and a CREATE TABLE, whose files the disk had no room for (measured with 26.7 and
# 26.9: write(2) fails with ENOSPC, the call succeeds, the part is broken). So it does not get one unless there is room
# to spare, for what else may be written meanwhile too.
_ROOM = 64 * 1024 * 1024


def directory_of(url: str) -> Path:
    """The directory of `chdb:DIRECTORY`, absolute. `chdb:///absolute` is the same as `chdb:/absolute`."""
    rest = url.removeprefix("chdb:")
    name = rest.removeprefix("//")
    if not name.strip("/") or "?" in name or name.startswith(":"):
        raise ConfigError(
            f"clickhouse_url: {url!r} names no directory", hint="Expected chdb:DIRECTORY, absolute or relative."
        )
    return Path(name).expanduser().absolute()


async def open_directory(
    url: str, *, create: bool = True, busy_timeout: float, sleep: Sleep = asyncio.sleep
) -> EmbeddedDatabase:
    """Open the engine on the URL's directory, which is created when missing, unless told otherwise.

    Waits up to `busy_timeout` seconds for another process to let go of it. Raises ConfigError, DatabaseBusy or
    NoDatabase.
    """
    directory = directory_of(url)
    if importlib.util.find_spec("chdb") is None:
        raise ConfigError(
            f"{url} needs the embedded engine, which is not installed",
            hint="pip install 'openai-audit-shipper[embedded]', or name a server in SHIPPER_CLICKHOUSE_URL.",
        )
    if not create and not directory.exists():
        raise NoDatabase(
            f"chdb:{directory}: no database there yet",
            hint="`shipper run` makes it, `shipper replay` too. To look around: `shipper demo`.",
        )
    _prepare(directory)
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
    waited = 0.0
    while True:
        holder = _holder(directory)
        if holder is None or holder == str(os.getpid()):
            try:
                return await EmbeddedDatabase.open(directory)
            except DatabaseError as error:
                # Another process may have been faster between the look and the opening.
                holder = _holder(directory)
                if holder is None:
                    error.hint = error.hint or "The engine does not start on what is in this directory. Was it damaged?"
                    raise
        if waited >= busy_timeout:
            raise DatabaseBusy(
                f"{directory} is in use by another process (pid {holder})",
                hint="One process at a time can use an embedded database. Wait for it to end, or use a server.",
            )
        await sleep(_POLL)
        waited += _POLL


def _prepare(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"clickhouse_url: cannot use {directory} as a directory: {error.strerror}",
            hint="Name a directory that this user may write in: chdb:DIRECTORY.",
        ) from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ConfigError(
            f"clickhouse_url: {directory} is not writable",
            hint="Name a directory that this user may write in: chdb:DIRECTORY.",
        )


def _holder(directory: Path) -> str | None:
    """The process id that holds the directory, `unknown` when it does not say, None when nobody holds it.

    The engine keeps a lock on the file `status` and has written its process id into it.
    """
    try:
        descriptor = os.open(directory / "status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        first = os.read(descriptor, 200).decode(errors="replace").splitlines()[:1]
        return first[0].removeprefix("PID: ").strip() if first else "unknown"
    finally:
        os.close(descriptor)
    return None


class EmbeddedDatabase:
    """See `shipper.load.clickhouse.Database`."""

    def __init__(self, directory: Path, thread: ThreadPoolExecutor, client: Client) -> None:
        self.address = f"chdb:{directory}"
        self._directory = directory
        self._thread: ThreadPoolExecutor | None = thread
        self._client = client
        self._read = known_to(client.server_settings, READ)
        self._for_person = known_to(client.server_settings, PERSON)
        self._for_rule = known_to(client.server_settings, RULE)
        self._for_insert = known_to(client.server_settings, INSERT, NEWER_INSERT)
        self._reader: Any = None

    @classmethod
    async def open(cls, directory: Path) -> EmbeddedDatabase:
        thread = ThreadPoolExecutor(1, thread_name_prefix="chdb")
        try:
            with translated(f"chdb:{directory}"):
                client = await asyncio.get_running_loop().run_in_executor(
                    thread, lambda: clickhouse_connect.get_client(interface="chdb", path=str(directory))
                )
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(directory, thread, client)

    async def _run(self, call: Callable[[], _T]) -> _T:
        if self._thread is None:
            raise DatabaseError(f"{self.address}: the database has been closed")
        with translated(self.address):
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer_of, call)

    def _answer_of(self, call: Callable[[], _T]) -> _T:
        try:
            return call()
        except ClickHouseError:
            # What a SELECT had found before it failed comes in front of the next answer (measured with 26.7 and 26.9).
            # So the next answer is nobody's.
            with suppress(ClickHouseError):
                self._client.command("SELECT 1")
            raise

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return await self._query(sql, parameters or {}, self._read)

    async def ask(
        self, sql: str, parameters: Mapping[str, Any], *, seconds: float, memory: int
    ) -> list[tuple[Any, ...]]:
        return await self._query(sql, parameters, limited(self._for_rule, seconds, memory))

    async def _query(
        self, sql: str, parameters: Mapping[str, Any], settings: Mapping[str, str]
    ) -> list[tuple[Any, ...]]:
        def call() -> list[tuple[Any, ...]]:
            result = self._client.query(
                sql, parameters=dict(parameters), settings=dict(settings), query_formats=INTEGER_TIMES
            )
            return [tuple(row) for row in result.result_rows]

        return await self._run(call)

    async def query_table(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        return json_table(await self._run(lambda: self._person(sql, "JSONCompactStrings")))

    async def query_json(self, sql: str) -> bytes:
        return json_array(await self._run(lambda: self._person(sql, "JSONEachRow")))

    def _person(self, sql: str, form: str) -> bytes:
        """Run a person's query on a handle of its own, whose `readonly` no statement can take back."""
        import chdb  # noqa: PLC0415 - only with the embedded extra, and slow to load

        try:
            if self._reader is None:
                reader = chdb.connect(os.path.realpath(self._directory))
                reader.query("SET " + ", ".join(f"{name} = '{value}'" for name, value in self._for_person.items()))
                self._reader = reader
            return bytes(self._reader.query(sql, form).bytes() or b"")
        except RuntimeError as error:
            # The engine's own error is one. `chdb.ChdbError` may be another class: two packages bring chdb/__init__.py.
            text = str(error)
            raise translate(DriverDatabaseError(text, code=code_of(text)), self.address) from error

    def _check_room(self) -> None:
        free = shutil.disk_usage(self._directory).free
        if free < _ROOM:
            raise DatabaseError(
                f"{self.address}: {free >> 20} MiB are free on its disk, expected at least {_ROOM >> 20}",
                hint="Make room and run again: nothing is claimed that was not written.",
            )

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        self._check_room()
        await self._run(lambda: self._client.command(sql, parameters=dict(parameters or {})))

    async def insert(self, table: str, columns: Sequence[str], body: Sequence[bytes], *, token: str) -> None:
        def call() -> None:
            self._check_room()
            self._client.raw_insert(
                table,
                column_names=columns,
                insert_block=chunks(body),
                settings={**self._for_insert, "insert_deduplication_token": token},
                fmt="RowBinary",
            )

        await self._run(call)

    async def present(self, sql: str, parameters: Mapping[str, Any] | None, candidates: AbstractSet[str]) -> set[str]:
        def call() -> set[str]:
            found: set[str] = set()
            with self._client.query_column_block_stream(
                sql, parameters=dict(parameters or {}), settings=dict(PINNED)
            ) as blocks:
                for block in blocks:
                    found.update(candidates & set(block[0]))
            return found

        return await self._run(call)

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return

        def call() -> None:
            if self._reader is not None:
                self._reader.close()
            self._client.close()

        try:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(thread, call))
        finally:
            thread.shutdown(wait=False)
