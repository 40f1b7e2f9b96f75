"""Goldens: one event each in tests/golden/<event type or case>/raw.json, its row in row.json beside it.

row.json has the columns that are not empty, without rawLog, or the reason of a dead letter. To write them again after
a change that is meant: REGENERATE_GOLDENS=1 pytest tests/normalize, then read the diff.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from shipper.model import DeadLetter, Lane, Row
from shipper.normalize import event_types, normalize
from tests.normalize.conftest import received
from tests.rows import flat

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())

# Documented nowhere: no payload of them has been seen, and they are not made up here.
WITHOUT_PAYLOAD = {"resource.deleted", "tunnel.created", "tunnel.updated", "tunnel.deleted"}


def plain(result: Row | DeadLetter) -> dict[str, Any]:
    """A row or dead letter as row.json has it."""
    if isinstance(result, DeadLetter):
        return {"deadLetter": {"reason": result.reason, "detail": result.detail}}
    values = flat(result)
    return {name: value for name, value in values.items() if name != "rawLog" and value not in ("", 0, False, [], {})}


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    """An event gives the row beside it, column by column, and keeps its bytes."""
    event = received((GOLDEN / case / "raw.json").read_bytes())
    result = normalize(event)
    path = GOLDEN / case / "row.json"
    if os.environ.get("REGENERATE_GOLDENS") == "1":
        path.write_text(json.dumps(plain(result), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    assert plain(result) == json.loads(path.read_text(encoding="utf-8"))
    assert (result.raw if isinstance(result, Row) else result.event.raw) == event.raw


@pytest.mark.parametrize("case", CASES)
def test_any_lane_gives_the_same_row(case: str) -> None:
    """What the API and an archive deliver is one row; only an unknown type's lane tag needs the API."""
    raw = (GOLDEN / case / "raw.json").read_bytes()
    rows = [plain(normalize(received(raw, lane))) for lane in Lane]
    if case == "unknown-type":
        assert [row["tags"].pop("lane", "") for row in rows] == ["organization", "tenant", ""]
    assert rows[0] == rows[1] == rows[2]


def test_every_documented_type_has_a_golden() -> None:
    """A new type with a documented payload is not finished before its golden is there."""
    documented = {entry.type for entry in event_types() if not entry.type.startswith("tenant.")} - WITHOUT_PAYLOAD
    assert len(documented) == 57
    assert documented - set(CASES) == set()


def test_goldens_of_types_hold_that_type() -> None:
    """A folder named after a type holds an event of it, and none of them is a type the catalog lost."""
    known = {entry.type for entry in event_types()}
    for case in CASES:
        if "." in case:
            assert case in known
            assert json.loads((GOLDEN / case / "row.json").read_bytes())["eventType"] == case
