"""Rows of the log as a detection finds them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from shipper.load.clickhouse import Database
from shipper.model import Row
from tests import rowbinary


async def insert_rows(database: Database, rows: Sequence[Row]) -> None:
    """Write the rows, each time anew."""
    await rowbinary.insert_rows(database, rows, token=secrets.token_hex(8))
