"""What the product logs, kept in place of written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from shipper.telemetry import Logger

Entry = dict[str, Any]


@contextmanager
def capture_logs() -> Iterator[list[Entry]]:
    """What is logged meanwhile, at any level: the fields, and with them `event` and `log_level`."""
    found: list[Entry] = []

    def keep(_: Logger, level: str, event: str, fields: Mapping[str, object]) -> None:
        found.append({**fields, "event": event, "log_level": level})

    with patch.object(Logger, "write", keep):
        yield found
