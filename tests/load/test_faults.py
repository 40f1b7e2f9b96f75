"""Every error of the driver becomes one of ours, by type and code."""

from __future__ import annotations

import errno
import inspect

import aiohttp
import pytest
from clickhouse_connect.driver import exceptions

from shipper.errors import DatabaseError, DatabaseRefused, DatabaseUnavailable, SchemaError
from shipper.load.faults import code_of, translate, translated

DRIVER = {
    name: kind
    for name, kind in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == exceptions.__name__
}
# What each becomes without a code of ClickHouse.
EXPECTED = {
    "ClickHouseError": DatabaseError,
    "Warning": DatabaseError,
    "Error": DatabaseError,
    "InterfaceError": DatabaseError,
    "DatabaseError": DatabaseUnavailable,
    "DataError": DatabaseError,
    "OperationalError": DatabaseUnavailable,
    "IntegrityError": DatabaseError,
    "InternalError": DatabaseError,
    "ProgrammingError": DatabaseError,
    "NotSupportedError": DatabaseError,
    "StreamClosedError": DatabaseError,
    "StreamFailureError": DatabaseUnavailable,
}
# Raised and caught inside the driver, never out of it.
INTERNAL = {"StreamCompleteException"}


def test_the_table_knows_every_error_of_the_driver() -> None:
    """A release of the driver with a new error fails here before it surprises anybody."""
    assert DRIVER.keys() == EXPECTED.keys() | INTERNAL


@pytest.mark.parametrize("name", EXPECTED)
def test_an_error_of_the_driver_becomes_ours(name: str) -> None:
    """Exactly the expected class, the driver's as its cause, the address in front."""
    error = DRIVER[name]() if name == "StreamClosedError" else DRIVER[name]("it broke")
    with pytest.raises(DatabaseError) as caught, translated("http://host:8123/db"):
        raise error
    assert type(caught.value) is EXPECTED[name]
    assert caught.value.__cause__ is error
    assert str(caught.value).startswith("http://host:8123/db: ")


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError("cut"),
        ConnectionResetError(104, "reset"),
        TimeoutError(),
        BrokenPipeError(),
    ],
)
def test_an_error_of_the_network_is_transient(error: Exception) -> None:
    """Whatever layer it comes from."""
    with pytest.raises(DatabaseUnavailable) as caught, translated("a"):
        raise error
    assert caught.value.transient


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ({164, 192, 193, 194, 195, 497, 516}, DatabaseRefused),
        ({16, 60, 81}, SchemaError),
        ({159, 202, 209, 210, 241, 242, 252, 319, 999}, DatabaseUnavailable),
        ({36, 53, 62, 117, 530, 539, 600, 810}, DatabaseError),
    ],
)
def test_the_code_decides(codes: set[int], kind: type[DatabaseError]) -> None:
    """And it alone: not the driver's class, and not a number that only looks like it in the text."""
    for code in codes:
        for driver in (exceptions.DatabaseError, exceptions.OperationalError):
            error = translate(driver("Code: 60. DB::Exception: (UNKNOWN_TABLE)", code=code), "a")
            assert (type(error), error.code) == (kind, code)


def test_other_errors_pass_through() -> None:
    """A bug is not dressed up as a database that is away."""
    with pytest.raises(ZeroDivisionError), translated("a"):
        raise ZeroDivisionError


def test_messages_are_short_and_hold_what_clickhouse_said() -> None:
    """One line, without the driver's words round it, and never a page of it."""
    text = (
        "Received ClickHouse exception, code: 62, server response: Code: 62. DB::Exception:\n bad (for url http://h:1)"
    )
    assert str(translate(exceptions.DatabaseError(text, code=62), "a")) == "a: Code: 62. DB::Exception: bad"
    broken = "Can not write request body for http://h:1/?query=INSERT+INTO+t&database=d"
    assert str(translate(exceptions.OperationalError(broken), "a")) == "a: Can not write request body"
    assert len(str(translate(exceptions.DatabaseError("x" * 10_000, code=62), "a"))) < 700


def test_the_code_in_a_text_of_the_embedded_engine() -> None:
    """The number after `Code:`; None when there is none."""
    assert code_of("Code: 164. DB::Exception: Cannot execute query in readonly mode. (READONLY)") == 164
    assert code_of("no code") is None


@pytest.mark.parametrize("address", ["chdb:/data", "http://host:8123/db"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named_and_not_tried_again(address: str, number: int) -> None:
    """Of the driver's spool file: not an outage, whatever the kind of database."""
    error = translate(OSError(number, "no room"), address)
    assert type(error) is DatabaseError
    assert error.hint.startswith("Is the disk full?")


def test_what_clickhouse_refuses_for_good_says_what_to_do() -> None:
    for code, hint in ((243, "Is the disk full?"), (774, "MODIFY SETTING table_readonly = 0")):
        error = translate(exceptions.DatabaseError("Code: ?", code=code), "http://host:8123/db")
        assert type(error) is DatabaseError
        assert hint in error.hint
    # Nothing about HTTP where there is none.
    assert translate(OSError(errno.EIO, "bad"), "chdb:/data").hint == ""
