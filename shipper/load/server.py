"""A ClickHouse server over HTTP or HTTPS."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import clickhouse_connect
import zstandard
from clickhouse_connect.driver.httputil import check_env_proxy

from shipper.config import Settings
from shipper.errors import ConfigError
from shipper.load.answers import (
    INSERT,
    INTEGER_TIMES,
    NEWER,
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
from shipper.load.faults import translated
from shipper.load.rowbinary import chunks
from shipper.tls import client_context, is_loopback, refuse_plaintext

if TYPE_CHECKING:
    from clickhouse_connect.driver.asyncclient import AsyncClient

_CONNECT_SECONDS = 10
# Of zstd: the next ones take twice the time for a tenth less.
_LEVEL = 1
# Set by the shipper for each call, or spoken for by the HTTP interface: in the URL they would undo a promise.
_RESERVED = {
    *READ,
    *PERSON,
    *NEWER,
    *NEWER_INSERT,
    *INSERT,
    "async_insert",
    "database",
    "password",
    "query",
    "role",
    "session_id",
    "user",
}


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL says. The password does not show."""

    interface: str
    host: str
    port: int
    database: str
    user: str | None
    password: str = field(repr=False)
    settings: dict[str, str]
    ca_file: str | None
    client_cert: str | None
    client_key: str | None
    timeout: float

    @property
    def tls_mode(self) -> str | None:
        """The driver's words: the certificate beside the password, or as what the user logs in with."""
        if self.client_cert is None:
            return None
        return "strict" if self.password else "mutual"

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.interface}://{host}:{self.port}/{self.database}"


def parse(settings: Settings) -> Target:
    """Read `clickhouse_url`. Query parameters become ClickHouse settings of every call. Raises ConfigError."""
    url = settings.clickhouse_url_with_password().get_secret_value()
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        extra = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        # The cause may quote the URL, and the URL may hold the password.
        raise ConfigError("clickhouse_url is not a URL", hint=_EXPECTED) from None
    database = unquote(parts.path.strip("/"))
    if not host or "/" in database or parts.fragment:
        raise ConfigError("clickhouse_url does not name one host and one database", hint=_EXPECTED)
    if reserved := sorted(_RESERVED & extra.keys()):
        raise ConfigError(
            f"clickhouse_url may not set {reserved[0]!r}: the shipper sets it itself",
            hint="User and password come before the host, the database is the path.",
        )
    ca_file, cert_file, key_file = (
        settings.clickhouse_ca_file,
        settings.clickhouse_client_cert_file,
        settings.clickhouse_client_key_file,
    )
    if ca_file or cert_file or key_file:
        # The driver reads them again; here their faults are told as what they are.
        client_context(ca_file, cert_file, key_file, prefix="clickhouse_")
    target = Target(
        interface=parts.scheme,
        host=host,
        port=port or (8443 if parts.scheme == "https" else 8123),
        database=database or "default",
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password or ""),
        settings=extra,
        ca_file=str(ca_file) if ca_file else None,
        client_cert=str(cert_file) if cert_file else None,
        client_key=str(key_file) if key_file else None,
        timeout=settings.clickhouse_timeout.total_seconds(),
    )
    _check_secrecy(target, allow_plaintext=settings.allow_plaintext)
    return target


def _check_secrecy(target: Target, *, allow_plaintext: bool) -> None:
    """Raise ConfigError when the password would leave this machine unencrypted, or a certificate would not be used."""
    if target.interface == "http" and target.client_cert:
        raise ConfigError("clickhouse_client_cert_file is set, and clickhouse_url is http://", hint=_EXPECTED)
    if target.tls_mode == "mutual" and target.user is None:
        raise ConfigError(
            "clickhouse_url names no user, and a client certificate is to log one in",
            hint="Expected https://user@host:8443/database.",
        )
    if target.interface == "https" or not target.password or allow_plaintext:
        return
    # The driver also sends what is meant for this machine through the environment's proxy.
    proxied = check_env_proxy(target.interface, target.host, target.port)
    if proxied or not is_loopback(target.host):
        to = f"{target.host} through the proxy of the environment" if proxied else target.host
        refuse_plaintext("the password", to, setting="clickhouse_url")


_EXPECTED = "Expected http://user@host:8123/database or https://user@host:8443/database."


async def connect(target: Target) -> ServerDatabase:
    """Connect once. Raises DatabaseUnavailable, DatabaseRefused, SchemaError for an unknown database, ConfigError."""
    # The driver logs what it also raises; it is said once, by whoever catches it.
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
    # Between two processes of one machine it costs more time than it saves.
    compressed = not is_loopback(target.host)
    with translated(target.address):
        client = await clickhouse_connect.driver.create_async_client(
            interface=target.interface,
            host=target.host,
            port=target.port,
            username=target.user,
            password=target.password,
            database=target.database,
            settings=dict(target.settings),
            ca_cert=target.ca_file,
            client_cert=target.client_cert,
            client_cert_key=target.client_key,
            tls_mode=target.tls_mode,
            connect_timeout=min(_CONNECT_SECONDS, target.timeout),
            send_receive_timeout=target.timeout,
            client_name="openai-audit-shipper",
            compress="lz4" if compressed else False,
            # Calls run at the same time, which one session forbids.
            autogenerate_session_id=False,
        )
    database = ServerDatabase(client, target.address, compressed=compressed)
    try:
        # Nothing before this names the database, so that a wrong one would show only at the first insert.
        await database.query("SELECT 1")
    except BaseException:
        await database.close()
        raise
    return database


class ServerDatabase:
    """See `shipper.load.clickhouse.Database`."""

    def __init__(self, client: AsyncClient, address: str, *, compressed: bool) -> None:
        self._client = client
        self._compressed = compressed
        self._read = known_to(client.server_settings, READ)
        self._for_person = known_to(client.server_settings, PERSON)
        self._for_rule = known_to(client.server_settings, RULE)
        self._for_insert = known_to(client.server_settings, INSERT, NEWER_INSERT)
        self.address = address

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return await self._query(sql, parameters or {}, self._read)

    async def ask(
        self, sql: str, parameters: Mapping[str, Any], *, seconds: float, memory: int
    ) -> list[tuple[Any, ...]]:
        return await self._query(sql, parameters, limited(self._for_rule, seconds, memory))

    async def _query(
        self, sql: str, parameters: Mapping[str, Any], settings: Mapping[str, str]
    ) -> list[tuple[Any, ...]]:
        with translated(self.address):
            result = await self._client.query(
                sql, parameters=dict(parameters), settings=dict(settings), query_formats=INTEGER_TIMES
            )
            return [tuple(row) for row in result.result_rows]

    async def query_table(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        return json_table(await self._person(sql, "JSONCompactStrings"))

    async def query_json(self, sql: str) -> bytes:
        return json_array(await self._person(sql, "JSONEachRow"))

    async def _person(self, sql: str, form: str) -> bytes:
        """Run a person's query. The format goes into a header: appended to the SQL it would follow a `;`."""
        with translated(self.address):
            return await self._client.raw_query(
                sql, settings=dict(self._for_person), transport_settings={"X-ClickHouse-Format": form}
            )

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        with translated(self.address):
            await self._client.command(sql, parameters=dict(parameters or {}))

    async def insert(self, table: str, columns: Sequence[str], body: Sequence[bytes], *, token: str) -> None:
        with translated(self.address):
            await self._client.raw_insert(
                table,
                column_names=columns,
                insert_block=self._stream(body),
                settings={**self._for_insert, "insert_deduplication_token": token},
                fmt="RowBinary",
                compression="zstd" if self._compressed else None,
            )

    async def _stream(self, body: Sequence[bytes]) -> AsyncGenerator[bytes]:
        if not self._compressed:
            for chunk in chunks(body):
                yield chunk
            return
        frame = zstandard.ZstdCompressor(_LEVEL).compressobj()
        for chunk in chunks(body):
            yield frame.compress(chunk)
        yield frame.flush()

    async def present(self, sql: str, parameters: Mapping[str, Any] | None, candidates: AbstractSet[str]) -> set[str]:
        found: set[str] = set()
        with translated(self.address):
            async with await self._client.query_column_block_stream(
                sql, parameters=dict(parameters or {}), settings=dict(PINNED)
            ) as blocks:
                async for block in blocks:
                    found.update(candidates & set(block[0]))
        return found

    async def close(self) -> None:
        with translated(self.address):
            await self._client.close()
