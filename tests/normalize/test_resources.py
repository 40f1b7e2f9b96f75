"""What was acted on: which resources a payload yields, none twice, and none too big."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.normalize.conftest import Make, row_of


def listed(raw: bytes) -> tuple[list[dict[str, str]], dict[str, str]]:
    """The resources, and the tags that say something about them."""
    row = row_of(raw)
    tags = {key: value for key, value in row.tags.items() if key in ("wrongType", "resourcesCut")}
    return [orjson.loads(text) for text in row.resources], tags


@pytest.mark.parametrize(
    ("kind", "payload", "expected"),
    [
        ("group.updated", {"id": "g", "changes_requested": {"group_name": "A"}}, [("group", "g", "A")]),
        ("group.updated", {"id": "g", "data": {"group_name": "A"}}, [("group", "g", "A")]),
        ("group.created", {"id": "g", "changes_requested": {"group_name": "A"}}, [("group", "g", "A")]),
        (
            "group.created",
            {"id": "g", "data": {"group_name": "A"}, "changes_requested": {"group_name": "B"}},
            [("group", "g", "A")],
        ),
        ("group.created", {"id": "g", "data": None}, [("group", "g", "")]),
        ("role.assignment.created", {"principal_id": "u", "principal_type": "user"}, [("user", "u", "")]),
        ("role.assignment.created", {"principal_id": "u"}, [("principal", "u", "")]),
        ("role.assignment.created", {"principal_type": "user"}, []),
        (
            "certificates.activated",
            {"certificates": [{"id": "c1", "name": "A"}, None, {"id": "c2"}, {"name": "no id"}, {"id": "c1"}]},
            [("certificate", "c1", "A"), ("certificate", "c2", "")],
        ),
        ("certificates.activated", {"id": "c1"}, []),
        ("new.thing", {"id": "t", "name": "T"}, [("new", "t", "T")]),
        ("new.thing", {"id": 5, "name": 6}, []),
        ("new.thing", ["t"], []),
        ("", {"id": "t"}, []),
        ("user.updated", {}, []),
        ("user.updated", {"id": ""}, []),
    ],
)
def test_resources(make: Make, kind: str, payload: Any, expected: list[tuple[str, str, str]]) -> None:
    """Both places of the changes are read, lists item by item, and nothing absent is listed or marked."""
    found, tags = listed(make(type=kind, **{kind: payload}))
    assert [(resource["type"], resource["id"], resource.get("name", "")) for resource in found] == expected
    assert tags == {}


def test_project_is_one_of_them_and_not_twice(make: Make) -> None:
    """The event's project joins what the payload says of the same project."""
    project = {"id": "proj_1", "name": "Falcon"}
    both = make(type="project.archived", project=project, **{"project.archived": {"id": "proj_1"}})
    assert listed(both) == ([{"type": "project", "id": "proj_1", "name": "Falcon"}], {})
    other = make(type="project.archived", project=project, **{"project.archived": {"id": "proj_2"}})
    assert listed(other)[0] == [
        {"type": "project", "id": "proj_2"},
        {"type": "project", "id": "proj_1", "name": "Falcon"},
    ]
    assert listed(make(project={"id": "proj_1"}))[0] == [{"type": "project", "id": "proj_1"}]
    assert listed(make(project={"name": "Falcon"}))[0] == []


@pytest.mark.parametrize(
    ("kind", "payload", "wrong"),
    [
        ("user.updated", "user-1", "payload"),
        ("user.updated", {"id": 5}, "payload.id"),
        ("group.created", {"id": "g", "data": {"group_name": 5}}, "payload.data.group_name"),
        ("certificates.activated", {"certificates": {"id": "c"}}, "payload.certificates"),
        ("certificates.activated", {"certificates": ["c", "d"]}, "payload.certificates[]"),
        ("certificates.activated", {"certificates": [{"id": 5}]}, "payload.id"),
        ("checkpoint.permission.created", {"id": "c", "data": {"project_id": 5}}, "payload.data.project_id"),
    ],
)
def test_wrong_types_are_named(make: Make, kind: str, payload: Any, wrong: str) -> None:
    """A known type's payload that is not what the catalog says is marked by its path."""
    assert listed(make(type=kind, **{kind: payload}))[1] == {"wrongType": wrong}


def test_size(make: Make) -> None:
    """A text longer than 512 characters is left out, with its resource when it is the id, and that is told."""
    cut = {"resourcesCut": "true"}
    fits, long = "x" * 512, "x" * 513
    for payload, expected in (
        ({"id": fits, "data": {"email": "a@b.example"}}, [{"type": "invite", "id": fits, "email": "a@b.example"}]),
        ({"id": "i", "data": {"email": long}}, [{"type": "invite", "id": "i"}]),
        ({"id": long, "data": {"email": "a@b.example"}}, []),
    ):
        found, tags = listed(make(type="invite.sent", **{"invite.sent": payload}))
        assert (found, tags) == (expected, {} if expected and len(expected[0]) == 3 else cut)
    assert listed(make(project={"id": "proj_1", "name": long})) == ([{"type": "project", "id": "proj_1"}], cut)
    assert listed(make(project={"id": long, "name": "P"})) == ([], cut)
    assert row_of(make(project={"id": long, "name": "P"})).projectID == long


def test_unicode_is_kept(make: Make) -> None:
    """Names are written as they are, not escaped."""
    raw = make(type="group.created", **{"group.created": {"id": "g", "data": {"group_name": "Größe \U0001f600"}}})
    assert row_of(raw).resources == ['{"type":"group","id":"g","name":"Größe \U0001f600"}']
