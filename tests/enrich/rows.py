"""Rows as normalize leaves them, with only what a test is about."""

from __future__ import annotations

from typing import Any

import msgspec

from shipper.enrich.places import Place, read_place, write_place
from shipper.model import Row


def make_row(ip: str = "", place: Place | None = None, **values: Any) -> Row:
    row = Row(
        workspaceID="w",
        sourceID="s",
        sourceType="openai",
        sourceTTL=0,
        receivedAt=1_767_225_600,
        id="r",
        eventTime=1_767_225_600,
        eventName="login.succeeded",
        eventID="e",
        srcIP=ip,
        **values,
    )
    if place is not None:
        write_place(row, place)
    return row


def place_of(row: Row) -> Place:
    return Place(*read_place(row))


def changed(before: Row, after: Row) -> set[str]:
    """The columns in which two rows differ."""
    old, new = msgspec.structs.asdict(before), msgspec.structs.asdict(after)
    return {name for name in old if old[name] != new[name]}
