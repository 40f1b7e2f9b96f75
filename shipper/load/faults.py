"""Turns whatever the driver raises into our error tree. The only place that does, and it decides on types and codes."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import ClientError
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError
from clickhouse_connect.driver.exceptions import DatabaseError as DriverDatabaseError

from shipper.errors import (
    DatabaseError,
    DatabaseRefused,
    DatabaseUnavailable,
    SchemaError,
)
from shipper.tls import refusal

# Names as in ClickHouse's errorCodeToName(). The same call may work later:
_TRANSIENT = {
    159,  # TIMEOUT_EXCEEDED
    198,  # DNS_ERROR
    202,  # TOO_MANY_SIMULTANEOUS_QUERIES
    203,  # NO_FREE_CONNECTION
    209,  # SOCKET_TIMEOUT
    210,  # NETWORK_ERROR
    225,  # NO_ZOOKEEPER
    236,  # ABORTED
    241,  # MEMORY_LIMIT_EXCEEDED
    242,  # TABLE_IS_READ_ONLY: a replica that lost its keeper
    244,  # UNEXPECTED_ZOOKEEPER_ERROR
    252,  # TOO_MANY_PARTS: merges will catch up
    279,  # ALL_CONNECTION_TRIES_FAILED
    285,  # TOO_FEW_LIVE_REPLICAS
    286,  # UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
    319,  # UNKNOWN_STATUS_OF_INSERT
    364,  # RECEIVED_ERROR_TOO_MANY_REQUESTS
    439,  # CANNOT_SCHEDULE_TASK
    473,  # DEADLOCK_AVOIDED
    733,  # TABLE_IS_BEING_RESTARTED
    745,  # SERVER_OVERLOADED
    999,  # KEEPER_EXCEPTION
}
_REFUSED = {
    164: "This connection may only read.",  # READONLY
    192: "Check the user in SHIPPER_CLICKHOUSE_URL.",  # UNKNOWN_USER
    193: "Check SHIPPER_CLICKHOUSE_PASSWORD_FILE.",  # WRONG_PASSWORD
    194: "Set SHIPPER_CLICKHOUSE_PASSWORD_FILE to a file that holds the password.",  # REQUIRED_PASSWORD
    195: "This user may not connect from this address.",  # IP_ADDRESS_NOT_ALLOWED
    # ACCESS_DENIED. Some servers also ask for the right to each table engine.
    497: "A run needs SELECT, INSERT and, to migrate, CREATE TABLE, CREATE VIEW and TABLE ENGINE ON MergeTree"
    " and ReplacingMergeTree.",
    516: "Check the user in SHIPPER_CLICKHOUSE_URL and the password.",  # AUTHENTICATION_FAILED
}
_SCHEMA = {
    16: "Compare with `shipper schema diff`.",  # NO_SUCH_COLUMN_IN_TABLE
    60: "Create the tables with `shipper schema apply`.",  # UNKNOWN_TABLE
    81: "Create it with CREATE DATABASE, or name another one in SHIPPER_CLICKHOUSE_URL.",  # UNKNOWN_DATABASE
}

_FULL = "Is the disk full? Make room and run again: nothing is claimed that was not written."
_HINTS = {
    75: _FULL,  # CANNOT_WRITE_TO_FILE_DESCRIPTOR
    243: _FULL,  # NOT_ENOUGH_SPACE
    # TABLE_IS_PERMANENTLY_READ_ONLY
    774: "An operator made this table read-only: ALTER TABLE … MODIFY SETTING table_readonly = 0 undoes it.",
}
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_UNREACHABLE = "Is ClickHouse up, and is this its HTTP port?"

_REQUEST = re.compile(r" \(for url .*| for https?://\S+")
_CODE = re.compile(r"Code: (\d+)\b")
_LONGEST = 600


@contextmanager
def translated(address: str) -> Iterator[None]:
    """Raise what the block raises as an error of ours, with the driver's error as its cause."""
    try:
        yield
    except (ClickHouseError, ClientError, OSError, TimeoutError) as error:
        raise translate(error, address) from error


def translate(error: Exception, address: str) -> DatabaseError:
    """The error of ours for an error of the driver. `address` names the database in the message."""
    code: int | None = getattr(error, "code", None)
    message = f"{address}: {_text(error)}"
    if code in _REFUSED:
        return DatabaseRefused(message, hint=_REFUSED[code], code=code)
    if code in _SCHEMA:
        return SchemaError(message, hint=_SCHEMA[code], code=code)
    if code in _TRANSIENT:
        return DatabaseUnavailable(message, code=code)
    if code is not None:
        return DatabaseError(message, hint=_HINTS.get(code, ""), code=code)
    return _without_code(error, address, message)


def _without_code(error: Exception, address: str, message: str) -> DatabaseError:
    """The error of ours where ClickHouse itself said nothing."""
    if refused := refusal(error, prefix="clickhouse_"):
        return DatabaseError(f"{address}: {refused.message}", hint=refused.hint)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return DatabaseError(message, hint=_FULL)
    if isinstance(error, (OperationalError, ClientError, OSError, TimeoutError)):
        return DatabaseUnavailable(message, hint="" if address.startswith("chdb:") else _UNREACHABLE)
    if type(error) is DriverDatabaseError:
        # An answer without ClickHouse's code header is a proxy's or another service's.
        return DatabaseUnavailable(message, hint="Is this the HTTP port of ClickHouse? The answer has no error code.")
    return DatabaseError(message)


def code_of(text: str) -> int | None:
    """The number in `Code: N`, which is the only form in which the embedded engine gives it."""
    match = _CODE.search(text)
    return int(match[1]) if match else None


def _text(error: Exception) -> str:
    """What ClickHouse said, without the driver's words round it, on one line of bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    start = text.find("Code: ")
    text = _REQUEST.sub("", text[max(start, 0) :])
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
