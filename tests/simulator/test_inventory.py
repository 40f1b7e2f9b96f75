"""The inventory endpoints, against the official package's own models."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson
import pytest
from openai.types.admin.organization import AdminAPIKey, Group, Invite, OrganizationUser, Project, Role
from openai.types.admin.organization.projects import ProjectAPIKey, ProjectServiceAccount
from pydantic import BaseModel

from shipper.simulator import Organization, Simulator
from shipper.simulator.inventory import ENDPOINTS, answer
from shipper.simulator.query import BadRequest
from tests.simulator.raw import get
from tests.simulator.test_organization import undeclared

MODELS: dict[str, type[BaseModel]] = {
    "users": OrganizationUser,
    "projects": Project,
    "projects/{project_id}/api_keys": ProjectAPIKey,
    "projects/{project_id}/service_accounts": ProjectServiceAccount,
    "admin_api_keys": AdminAPIKey,
    "invites": Invite,
    "roles": Role,
    "groups": Group,
}


def page(organization: Organization, path: str, query: str = "") -> dict[str, Any]:
    body = answer(organization, f"/v1/organization/{path}", query)
    assert isinstance(body, bytes), body
    document: dict[str, Any] = orjson.loads(body)
    return document


def filled(organization: Organization, path: str) -> list[str]:
    """The path for each project, when it is a project's."""
    return [path.format(project_id=project.id) for project in organization.directory.projects]


def test_every_documented_endpoint_is_there() -> None:
    assert [endpoint.path for endpoint in ENDPOINTS] == list(MODELS)


@pytest.mark.parametrize("path", MODELS)
def test_items_are_as_the_official_package_declares_them(small: Organization, path: str) -> None:
    items = [item for each in filled(small, path) for item in page(small, each)["data"]]
    assert items
    for item in items:
        assert list(undeclared(MODELS[path].model_validate(item))) == []


@pytest.mark.parametrize("path", ["users", "admin_api_keys", "invites"])
def test_one_family_goes_on_from_last_id(small: Organization, path: str) -> None:
    whole = page(small, path, "limit=100")
    assert set(whole) == {"object", "data", "first_id", "last_id", "has_more"}
    assert whole["has_more"] is False
    ids = [item["id"] for item in whole["data"]]
    first = page(small, path, "limit=2")
    assert (first["first_id"], first["last_id"], first["has_more"]) == (ids[0], ids[1], True)
    second = page(small, path, f"limit=2&after={first['last_id']}")
    assert [item["id"] for item in second["data"]] == ids[2:4]
    end = page(small, path, f"after={ids[-1]}")
    assert end == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@pytest.mark.parametrize("path", ["roles", "groups"])
def test_the_other_family_goes_on_from_next(small: Organization, path: str) -> None:
    whole = page(small, path)
    ids = [item["id"] for item in whole["data"]]
    assert {name: whole[name] for name in whole if name != "data"} == {
        "object": "list",
        "has_more": False,
        "next": None,
    }
    first = page(small, path, "limit=2")
    assert (first["has_more"], first["next"]) == (True, ids[1])
    assert [item["id"] for item in page(small, path, f"after={first['next']}")["data"]] == ids[2:]


def test_parameters_of_single_endpoints(small: Organization) -> None:
    user = small.directory.users[3]
    assert [item["id"] for item in page(small, "users", f"emails[]={user.email}")["data"]] == [user.id]
    shown, everything = (len(page(small, "projects", query)["data"]) for query in ("", "include_archived=true"))
    assert (shown, everything) == (len(small.directory.projects) - 1, len(small.directory.projects))
    ids = [item["id"] for item in page(small, "admin_api_keys")["data"]]
    assert [item["id"] for item in page(small, "admin_api_keys", "order=desc")["data"]] == ids[::-1]
    keys = "projects/{project_id}/api_keys"
    assert not any(page(small, path, "owner_project_access=inactive")["data"] for path in filled(small, keys))


@pytest.mark.parametrize(
    ("path", "query", "status", "param"),
    [
        ("users", "limit=0", 400, "limit"),
        ("users", "limit=101", 400, "limit"),
        ("groups", "limit=1001", 400, "limit"),
        ("users", "after=user-none", 400, "after"),
        ("users", "order=asc", 400, "order"),
        ("roles", "order=up", 400, "order"),
        ("projects/proj_none/api_keys", "", 404, "project_id"),
    ],
)
def test_bad_requests_are_refused_by_name(small: Organization, path: str, query: str, status: int, param: str) -> None:
    refused = answer(small, f"/v1/organization/{path}", query)
    assert isinstance(refused, BadRequest)
    assert (refused.status, refused.param) == (status, param)


@pytest.mark.parametrize("path", ["nothing", "projects/a/b/api_keys", "users/"])
def test_other_paths_are_none_of_its_business(small: Organization, path: str) -> None:
    assert answer(small, f"/v1/organization/{path}", "") is None


async def test_the_server_answers_with_it(client: aiohttp.ClientSession, simulator: Simulator) -> None:
    found = await get(client, simulator, "/organization/users", params=[("limit", "3")])
    assert found.status == 200
    assert found.json == page(simulator.organization, "users", "limit=3")
    refused = await get(client, simulator, "/organization/projects/proj_none/api_keys")
    assert (refused.status, refused.json["error"]["code"]) == (404, "not_found")
