"""Fixtures that more than one folder of tests needs: a ClickHouse server, and a connected database of each kind."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import is_hypothesis_test

from shipper.config import Settings
from shipper.load import schema
from shipper.load.clickhouse import connect
from shipper.load.retry import RetryingDatabase
from tests.clickhouse_server import clickhouse_server, restricted_server
from tests.secrets_scan import (
    pytest_configure,
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
    pytest_unconfigure,
    report_leak,
    tables_that_leak,
)

__all__ = [
    "clickhouse_server",
    "pytest_configure",
    "pytest_runtest_logreport",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_testnodedown",
    "pytest_unconfigure",
    "restricted_server",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, which are those of the model: at the end no process is left alone with one of them.

    Searches are not traced for coverage: they would take twice the time, over lines that other tests cover.
    """
    items.sort(key=lambda item: item.path.parent.name != "model")
    for item in items:
        if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj):
            item.add_marker(pytest.mark.no_cover)


def database_settings(url: str, **values: object) -> Settings:
    """Settings for a test's database: no pause is ever long, and nothing of the environment counts."""
    return Settings(**{"clickhouse_url": url, "retries": 2, "retry_ceiling": "0s", **values})  # type: ignore[arg-type]


@pytest.fixture
async def server_url(request: pytest.FixtureRequest, clickhouse_server: str) -> AsyncIterator[str]:
    """The URL of an empty database on the server, dropped after the test. No table of it may hold a key by then."""
    name = f"test_{secrets.token_hex(6)}"
    server = await connect(database_settings(clickhouse_server))
    await server.command(f"CREATE DATABASE {name}")
    yield f"{clickhouse_server}/{name}"
    for table in await tables_that_leak(server, name):
        report_leak(f"table {table} of {request.node.nodeid}")
    await server.command(f"DROP DATABASE {name} SYNC")
    await server.close()


@pytest.fixture
def embedded_url(tmp_path: Path) -> str:
    """The URL of an embedded database in an empty directory."""
    return f"chdb:{tmp_path / 'data'}"


@pytest.fixture(params=["embedded", "server"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, once of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def bare_database(database_url: str) -> AsyncIterator[RetryingDatabase]:
    """A connected database without any tables, once of each kind."""
    database = await connect(database_settings(database_url))
    yield database
    await database.close()


@pytest.fixture
async def database(bare_database: RetryingDatabase) -> RetryingDatabase:
    """A connected database with the schema applied, once of each kind."""
    await schema.apply(bare_database)
    return bare_database
