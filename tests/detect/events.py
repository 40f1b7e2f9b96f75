"""Rows of the log as a detection finds them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from shipper.load.clickhouse import Database
from shipper.load.tables import LOGS
from shipper.model import Row, columns


async def insert_rows(database: Database, rows: Sequence[Row]) -> None:
    """Write the rows, each time anew."""
    data = list(columns(rows).values())
    await database.insert(LOGS.name, LOGS.columns, LOGS.types, data, token=secrets.token_hex(8))
