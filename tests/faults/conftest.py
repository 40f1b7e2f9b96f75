"""A ClickHouse server that these tests may kill, and a rig over each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.clickhouse_server import Server, skip_where_there_is_no_way
from tests.faults.rig import Rig, open_rig


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this folder alone. A test that kills it starts it again."""
    skip_where_there_is_no_way()
    with Server(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture
async def rig(tmp_path: Path, server: Server) -> AsyncIterator[Rig]:
    """A rig over an empty database of the server."""
    async with open_rig(tmp_path, server) as rig:
        yield rig


@pytest.fixture
async def embedded_rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A rig over an empty embedded database."""
    async with open_rig(tmp_path, None) as rig:
        yield rig


@pytest.fixture(params=["rig", "embedded_rig"])
def any_rig(request: pytest.FixtureRequest) -> Rig:
    """A rig over an empty database, once of each kind."""
    rig: Rig = request.getfixturevalue(request.param)
    return rig
