"""What is particular to a server: its URL, lost answers, lost servers, refused users."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shipper.errors import ConfigError, DatabaseRefused, DatabaseUnavailable, SchemaError
from shipper.load import schema, server
from shipper.load.clickhouse import Database, connect
from shipper.load.migrations import migrations
from shipper.load.rowbinary import chunks
from tests.clickhouse_server import free_port
from tests.conftest import database_settings
from tests.load.rows import NOON, counted, delivery, give, ids, row, rows, writer
from tests.rowbinary import body_of, insert_rows, inserts_ended


async def no_sleep(_: float) -> None:
    """Retries without their pauses."""


class Proxy:
    """Stands between the driver and the server. Once armed it passes an insert on and keeps the answer to itself."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._host, self._port = str(parts.hostname), int(parts.port or 8123)
        self.drop = 0
        self.inserts: list[set[str]] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        listener = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with listener:
            yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
        inserting = False

        async def upwards() -> None:
            nonlocal inserting
            while data := await reader.read(65536):
                if b"insert_deduplication_token=" in data:
                    inserting = True
                    query = data.partition(b"?")[2].partition(b" ")[0].decode()
                    self.inserts.append(set(query.split("&")))
                up_writer.write(data)
                await up_writer.drain()

        passing = asyncio.create_task(upwards())
        try:
            while data := await up_reader.read(65536):
                if inserting and self.drop:
                    self.drop -= 1
                    break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            passing.cancel()
            await asyncio.gather(passing, return_exceptions=True)
            for stream in (writer, up_writer):
                stream.close()


@pytest.mark.parametrize("lost", [1, 2])
async def test_an_insert_whose_answer_is_lost_is_there_once(server_url: str, lost: int) -> None:
    """It is sent again, as often as configured: the table has one copy, the report counts it once."""
    direct = await connect(database_settings(server_url))
    await schema.apply(direct)
    proxy = Proxy(server_url)
    async with proxy.running() as url:
        database = await connect(database_settings(f"{url}/{urlsplit(server_url).path.strip('/')}"), sleep=no_sleep)
        batch, window = writer(database), delivery()
        give(batch, window, rows(1, 2, 3), [])
        proxy.drop = lost
        await batch.flush()
        await database.close()
    assert len(proxy.inserts) == lost + 1
    # All the same insert, acknowledged only when done, whatever the server's own defaults are.
    [token] = {one for query in proxy.inserts for one in query if one.startswith("insert_deduplication_token=")}
    wanted = {token, "async_insert=0", "insert_deduplicate=1", "wait_end_of_query=1"}
    assert all(wanted <= query for query in proxy.inserts)
    assert counted(window) == (3, 0, 0)
    assert await ids(direct) == ["1", "2", "3"]
    await direct.close()


@pytest.fixture(params=[True, False], ids=["plain", "compressed"])
async def once(
    request: pytest.FixtureRequest, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Database]:
    """A database that sends plain bodies, as to this machine, and compressed ones, as to any other. It tries once."""
    monkeypatch.setattr(server, "is_loopback", lambda _: request.param)
    database = await connect(database_settings(server_url, retries=0))
    await schema.apply(database)
    yield database
    await database.close()


async def test_a_body_of_many_chunks_arrives_as_it_was_sent(once: Database) -> None:
    """Byte for byte, however it is cut."""
    raws = [number.to_bytes(2, "big") * (number + 1) for number in range(500)]
    given = [row(number, rawLog=raw) for number, raw in enumerate(raws)]
    assert len(list(chunks(body_of(given)))) > 4
    await insert_rows(once, given, token="t")
    found = await once.query("SELECT hex(rawLog) FROM openai_audit_logs ORDER BY eventID")
    assert [bytes.fromhex(raw) for (raw,) in found] == raws


async def test_a_body_that_breaks_off_leaves_nothing(once: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the rows that came; the same insert again writes them all."""

    def breaking(body: Sequence[bytes]) -> Iterator[bytes]:
        yield from islice(chunks(body), 2)
        raise OSError("broken")

    with monkeypatch.context() as broken:
        broken.setattr(server, "chunks", breaking)
        with pytest.raises(DatabaseUnavailable):
            await insert_rows(once, rows(*range(500)), token="t")
    await inserts_ended(once)
    assert await once.query("SELECT count() FROM openai_audit_logs") == [(0,)]
    await insert_rows(once, rows(*range(500)), token="t")
    assert await once.query("SELECT count() FROM openai_audit_logs") == [(500,)]


async def test_a_server_that_is_not_there() -> None:
    """Tried as often as configured, then unavailable, with the address and without the password."""
    settings = database_settings(f"http://someone:hunter2@127.0.0.1:{free_port()}/audit", retries=3)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    with pytest.raises(DatabaseUnavailable) as caught:
        await connect(settings, sleep=sleep)
    assert len(pauses) == 3
    assert str(caught.value).startswith(f"http://127.0.0.1:{urlsplit(settings.clickhouse_url).port}/audit: ")
    assert "hunter2" not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


async def test_pauses_grow_and_have_a_ceiling() -> None:
    """Full jitter: each pause is at most twice the bound before, never over the ceiling."""
    settings = database_settings(f"http://127.0.0.1:{free_port()}/", retries=8, retry_ceiling="3s")
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    with pytest.raises(DatabaseUnavailable):
        await connect(settings, sleep=sleep)
    assert len(pauses) == 8
    assert all(0 <= pause <= min(3, 0.5 * 2**number) for number, pause in enumerate(pauses))


async def test_something_that_is_not_clickhouse() -> None:
    """An answer without ClickHouse's code may be a proxy whose server is away: transient, and the hint asks."""

    async def answer(reader: asyncio.StreamReader, stream: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        stream.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope")
        await stream.drain()
        stream.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(DatabaseUnavailable) as caught:
            await connect(database_settings(f"http://127.0.0.1:{port}/", retries=0))
    assert caught.value.hint == "Is this the HTTP port of ClickHouse? The answer has no error code."


async def test_a_wrong_password_is_refused_at_once(clickhouse_server: str) -> None:
    """Not tried again, exit code 77, and the password is in no message."""
    host = urlsplit(clickhouse_server).netloc.rpartition("@")[2]
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    with pytest.raises(DatabaseRefused) as caught:
        await connect(database_settings(f"http://nobody:hunter2@{host}/default"), sleep=sleep)
    assert (caught.value.code, int(caught.value.exit_code), pauses) == (516, 77, [])
    assert "hunter2" not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


async def test_an_unknown_database_is_told_at_once(clickhouse_server: str) -> None:
    """A configuration error with its hint, before anything is read from the API."""
    with pytest.raises(SchemaError) as caught:
        await connect(database_settings(f"{clickhouse_server}/no_such_database"))
    assert (caught.value.code, int(caught.value.exit_code)) == (81, 78)
    assert caught.value.hint.startswith("Create it with CREATE DATABASE")


async def test_the_rights_a_run_needs(restricted_server: str) -> None:
    """SELECT, INSERT and CREATE TABLE on the database and the two engines are enough to migrate, write and read."""
    host = restricted_server.removeprefix("http://")
    database = await connect(database_settings(f"http://loader:pw@{host}/audit"))
    assert len(await schema.apply(database)) == len(migrations())
    batch, window = writer(database), delivery()
    give(batch, window, rows(1, 2), [])
    await batch.flush()
    assert (counted(window), await ids(database)) == ((2, 0, 0), ["1", "2"])
    with pytest.raises(DatabaseRefused, match="scratch database") as caught:
        await schema.diff(database)
    assert (caught.value.code, int(caught.value.exit_code)) == (497, 77)
    await database.close()


async def test_a_user_who_may_only_read(restricted_server: str) -> None:
    """Is refused with the rights that are missing, at the first thing it may not do."""
    host = restricted_server.removeprefix("http://")
    database = await connect(database_settings(f"http://viewer:pw@{host}/audit"))
    with pytest.raises(DatabaseRefused) as caught:
        await schema.apply(database)
    assert caught.value.code == 497
    assert caught.value.hint.startswith("A run needs SELECT, INSERT and")
    await database.close()


async def test_settings_in_the_url_reach_the_server(server_url: str) -> None:
    """A query parameter is a setting of every call."""
    database = await connect(database_settings(f"{server_url}?max_threads=3"))
    assert await database.query("SELECT getSetting('max_threads')") == [(3,)]
    await database.close()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://host", "http://host:8123/default"),
        ("https://host/", "https://host:8443/default"),
        ("http://user:pass@host:1/db", "http://host:1/db"),
        ("http://[::1]:8123/my%20db", "http://[::1]:8123/my db"),
    ],
)
def test_the_address_of_a_url(url: str, address: str) -> None:
    """Ports and database have defaults; user and password are no part of it."""
    target = server.parse(database_settings(url, allow_plaintext=True))
    assert target.address == address
    assert "pass" not in repr(target)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://host/a/b", "one host and one database"),
        ("http://host/db#x", "one host and one database"),
        ("http://host/db?flag", "is not a URL"),
        ("http://host/db?password=hunter2", "may not set 'password'"),
        ("http://host/db?async_insert=1", "may not set 'async_insert'"),
        ("http://host/db?session_id=1", "may not set 'session_id'"),
        ("http://host/db?offset=1", "may not set 'offset'"),
        ("http://host/db?timeout_overflow_mode=break", "may not set 'timeout_overflow_mode'"),
    ],
)
def test_a_url_that_cannot_be_right_is_refused(url: str, message: str) -> None:
    """Said at the start, with an example, and never with the password."""
    with pytest.raises(ConfigError, match=message) as caught:
        server.parse(database_settings(url))
    assert caught.value.hint
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", [None, "no certificate"])
async def test_a_ca_file_is_checked(tmp_path: Path, text: str | None) -> None:
    """Missing, or without certificates: a configuration error that names it, not a server that is away."""
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"clickhouse_ca_file .*ca\.pem: .*, expected PEM certificates"):
        await connect(database_settings("https://127.0.0.1:1/", clickhouse_ca_file=str(path)))


IN_ANOTHER_ZONE = """
import asyncio, sys, time
from tests.conftest import database_settings
from tests.load.rows import delivery, give, row, writer
from shipper.load import schema
from shipper.load.clickhouse import Database, connect
async def main():
    assert time.localtime(0).tm_hour != 0
    database = await connect(database_settings(sys.argv[1]))
    await schema.apply(database)
    batch = writer(database)
    give(batch, delivery(), [row(1, time=1_793_491_200)], [])
    await batch.flush()
    print(await database.query("SELECT eventTime, toUnixTimestamp(eventTime), receivedAt FROM openai_audit_logs"))
    print(await database.query(
        "SELECT partition FROM system.parts WHERE active AND database = currentDatabase()"
        " AND table = 'openai_audit_logs'"))
    print((await database.query_table("SELECT eventTime FROM openai_audit_logs"))[1])
    await database.close()
asyncio.run(main())
"""


def test_the_zone_of_the_host_changes_nothing(database_url: str) -> None:
    """In New York the first second of November UTC is the same second, in November's partition."""
    result = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_ZONE, database_url],
        env={"TZ": "America/New_York", "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.splitlines() == [
        f"[({NOON}, {NOON}, {NOON + 3600})]",
        "[('202611',)]",
        "[('2026-11-01 00:00:00',)]",
    ], result.stderr
