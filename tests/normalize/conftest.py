"""What the tests of normalize share: one source, one moment of receipt, and a short way to normalize a document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from shipper.model import DeadLetter, Lane, RawEvent, Row, Source, SourceID, WorkspaceID
from shipper.normalize import normalize
from tests.rows import view

SOURCE = Source(WorkspaceID("workspace-1"), SourceID("source-1"), retention_days=90)
RECEIVED_AT = 1_760_100_000


def received(raw: bytes, lane: Lane = Lane.ORGANIZATION) -> RawEvent:
    return RawEvent(raw, lane, SOURCE, RECEIVED_AT)


def row_of(raw: bytes, lane: Lane = Lane.ORGANIZATION) -> Any:
    """The row of an event that must become one: its columns as attributes."""
    row = normalize(received(raw, lane))
    assert isinstance(row, Row), row
    return view(row)


def dead_letter_of(raw: bytes) -> DeadLetter:
    """The dead letter of bytes that must become one."""
    letter = normalize(received(raw))
    assert isinstance(letter, DeadLetter), letter
    return letter


Make = Callable[..., bytes]


@pytest.fixture
def make() -> Make:
    """Bytes of an event that is complete in itself, with what the test changes; None leaves a key out."""

    def build(**changes: Any) -> bytes:
        event = {"id": "audit_log-1", "type": "user.updated", "effective_at": 1_760_009_000, **changes}
        return orjson.dumps({key: value for key, value in event.items() if value is not None})

    return build
