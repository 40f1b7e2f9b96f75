from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from shipper.simulator import Organization, Simulator

NOW = 1_763_620_000  # 2025-11-20T06:26:40Z


@pytest.fixture(scope="session")
def organization() -> Organization:
    return Organization.build(now=NOW)


@pytest.fixture(scope="session")
def small() -> Organization:
    """A few days, for tests that walk every page more than once."""
    return Organization.build(now=NOW, days=3, events_per_day=60)


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def simulator(organization: Organization) -> AsyncIterator[Simulator]:
    async with Simulator(organization) as simulator:
        yield simulator
