"""Turns an event as received into a row: pure, and never failing for what an event holds."""

from __future__ import annotations

from shipper.normalize.catalog import CATEGORIES, EventType, event_types
from shipper.normalize.events import Reason, normalize, row_id

__all__ = ["CATEGORIES", "EventType", "Reason", "event_types", "normalize", "row_id"]
