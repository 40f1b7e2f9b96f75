"""Rows as normalize leaves them, with only what a test is about."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from shipper.model import Place, Row
from tests import rows
from tests.rows import flat


def make_row(ip: str = "", place: Place | None = None, **values: Any) -> Row:
    row = rows.make_row(receivedAt=1_767_225_600, eventTime=1_767_225_600, eventType="login.succeeded", **values)
    row.place = replace(place or row.place, ip=ip)
    return row


def place_of(row: Row) -> Place:
    """What is known of the row's address, without the address."""
    return replace(row.place, ip="")


def changed(before: Row, after: Row) -> set[str]:
    """The columns in which two rows differ."""
    old, new = flat(before), flat(after)
    return {name for name in old if old[name] != new[name]}
