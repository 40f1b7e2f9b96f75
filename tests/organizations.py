"""Settings and truth for tests that ship from the simulated organization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import SecretStr

from shipper.config import Settings, SourceSettings
from shipper.load.clickhouse import Database
from shipper.model import Lane
from shipper.simulator import Simulator
from tests.conftest import database_settings

# A Friday noon. Tests give the shipper and the simulator this clock, so that no test depends on the day it runs on.
NOW = 1_763_726_400
DAY = 86_400

KEY = "sk-admin-simulated"


def source_settings(simulator: Simulator, **values: Any) -> SourceSettings:
    """One source that reads the simulator with its key."""
    return SourceSettings(**{"base_url": simulator.base_url, "admin_key": SecretStr(KEY), **values})


def ship_settings(url: str, *simulators: Simulator, **values: Any) -> Settings:
    """Settings that ship from the simulators into the database at `url`, without pauses."""
    sources = tuple(
        source_settings(simulator, id=f"source-{number}") for number, simulator in enumerate(simulators, start=1)
    )
    return database_settings(url, **{"sources": sources, "requests_per_second": 100, "lookback": "30d", **values})


def truth(simulator: Simulator, lanes: Iterable[Lane] = (Lane.ORGANIZATION, Lane.TENANT)) -> dict[str, bytes]:
    """Every event the simulator holds: id to bytes."""
    return {event_id: raw for lane in lanes for event_id, _, raw in simulator.events(lane)}


async def shipped(database: Database, source_id: str = "source-1") -> dict[str, bytes]:
    """What the plain table holds of a source: id to rawLog. Fails when an event is there twice, merged or not."""
    rows = await database.query(
        "SELECT eventID, hex(rawLog) FROM openai_audit_logs WHERE sourceID = {source:String} SETTINGS final = 0",
        {"source": source_id},
    )
    table = {event_id: bytes.fromhex(raw) for event_id, raw in rows}
    assert len(table) == len(rows), "an event is in the table twice"
    return table
