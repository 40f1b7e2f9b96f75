"""The event catalog: complete, consistent, and what normalize makes of types no payload is known of."""

from __future__ import annotations

from collections import Counter

import msgspec
import orjson
import pytest

from shipper.assets import schemas
from shipper.model import Lane
from shipper.normalize import CATEGORIES, catalog, event_types
from shipper.normalize.catalog import ResourcePaths, compile_resource
from tests.normalize.conftest import Make, row_of

READ_ONLY = {
    "login.succeeded",
    "login.failed",
    "logout.succeeded",
    "logout.failed",
    "tenant.workload_identity.access_token.issued",
    "tenant.principal_authentication_policy.resolved",
    "tenant.user.looked_up",
}


def test_counts() -> None:
    """149 types, none twice; 88 named tenant.* and two role types are read in the tenant lane."""
    names = [entry.type for entry in event_types()]
    assert len(names) == len(set(names)) == 149
    assert sum(not name.startswith("tenant.") for name in names) == 61
    assert Counter(entry.lane for entry in event_types()) == {Lane.ORGANIZATION: 59, Lane.TENANT: 90}
    unprefixed = {entry.type for entry in event_types() if entry.lane is Lane.TENANT and "tenant." not in entry.type}
    assert unprefixed == {"role.bound_to_resource", "role.unbound_from_resource"}


def test_every_entry_is_for_people_too() -> None:
    """Each type has a title of its own, and every category is documented and used."""
    titles = Counter(entry.title for entry in event_types())
    assert [title for title, count in titles.items() if count > 1 or not title or title.endswith(".")] == []
    assert {entry.category for entry in event_types()} == set(CATEGORIES)


def test_read_only_types() -> None:
    """Only sign-ins, sign-outs and look-ups are read-only: a new one is a decision, made here."""
    assert {entry.type for entry in event_types() if entry.read_only} == READ_ONLY


def test_one_entry_a_line() -> None:
    """The file is reviewed by its diff: a line an entry, as this writes it."""
    lines = schemas("openai", "events.json").read_text(encoding="utf-8").splitlines()
    assert [lines[0], lines[-1]] == ["[", "]"]
    assert len(lines) == 151
    for line, entry in zip(lines[1:-1], event_types(), strict=True):
        assert orjson.loads(line.removesuffix(","))["type"] == entry.type


@pytest.mark.parametrize("entry", event_types(), ids=lambda entry: entry.type)
def test_every_type_normalizes_without_its_payload(entry: catalog.EventType, make: Make) -> None:
    """An event of a known type is that type's row though no payload came: columns from the catalog, no marks."""
    row = row_of(make(type=entry.type), Lane.ARCHIVE)
    assert (row.eventType, row.eventName, row.readOnly) == (entry.type, entry.type, entry.read_only)
    assert row.tags == {"lane": entry.lane.value, "category": entry.category}
    assert row.resources == []


@pytest.mark.parametrize(
    "entry", [entry for entry in event_types() if entry.type.startswith("tenant.")], ids=lambda entry: entry.type
)
def test_undocumented_types_use_what_comes(entry: catalog.EventType, make: Make) -> None:
    """Where no payload is documented, an id and name at its root are taken for the resource."""
    row = row_of(make(type=entry.type, **{entry.type: {"id": "thing-1", "name": "Thing"}}))
    assert [orjson.loads(text) for text in row.resources] == [
        {"type": entry.resources[0].type, "id": "thing-1", "name": "Thing"}
    ]


def test_unknown_category_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt category stops the first use, not the first query."""
    entry = {"type": "a.b", "lane": "tenant", "category": "usr", "title": "A", "readOnly": False, "resources": []}

    class File:
        def read_bytes(self) -> bytes:
            return orjson.dumps([entry])

    monkeypatch.setattr(catalog, "schemas", lambda *_: File())
    with pytest.raises(ValueError, match=r"a\.b: unknown category 'usr'"):
        catalog.event_types.__wrapped__()
    entry["colour"] = "red"
    with pytest.raises(msgspec.ValidationError, match="colour"):
        catalog.event_types.__wrapped__()


def test_paths_of_one_resource_stay_in_one_list() -> None:
    """An id in one list and a name in another cannot be matched up."""
    with pytest.raises(ValueError, match="another list"):
        compile_resource(ResourcePaths("config", "configs[].id", name="others[].name"))
    with pytest.raises(ValueError, match="another list"):
        compile_resource(ResourcePaths("config", "configs[].id", name="name"))
