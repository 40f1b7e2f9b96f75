"""The event types that exist and the lane of each, from the event catalog that ships with the product."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import orjson

from shipper.assets import schemas
from shipper.model import Lane


@cache
def lanes() -> Mapping[str, Lane]:
    """Event type to lane, for every type of the catalog, in the catalog's order."""
    entries = orjson.loads(schemas("openai", "events.json").read_bytes())
    return {entry["type"]: Lane(entry["lane"]) for entry in entries}
