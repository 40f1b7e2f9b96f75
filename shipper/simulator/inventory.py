"""The inventory endpoints of the simulated organization: one entry per documented path, in both cursor families."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from shipper.simulator.directory import Key, Named, Project, ServiceAccount, User
from shipper.simulator.organization import Organization
from shipper.simulator.query import BadRequest, collect, parse_limit, refuse_unknown

Item = dict[str, Any]
Values = Mapping[str, list[str]]
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`items` gives all objects of a request, oldest first, from the organization, the project in the path (or None)
    and the parameters. `cursor` is the field of the envelope that a client sends back as `after`."""

    path: str
    items: Callable[[Organization, Project | None, Values], Sequence[Item]]
    cursor: Literal["last_id", "next"] = "last_id"
    default_limit: int = 20
    maximum: int = 100
    params: frozenset[str] = frozenset()


def _user(user: User) -> Item:
    return {
        "object": "organization.user",
        "id": user.id,
        "name": user.name,
        "email": user.email,
        "role": user.role,
        "added_at": user.added_at,
    }


def _users(organization: Organization, _: Project | None, values: Values) -> Sequence[Item]:
    wanted = values.get("emails[]")
    return [_user(user) for user in organization.directory.users if wanted is None or user.email in wanted]


def _projects(organization: Organization, _: Project | None, values: Values) -> Sequence[Item]:
    projects = organization.directory.projects
    shown = projects if values.get("include_archived") == ["true"] else projects[:-1]
    return [
        {
            "object": "organization.project",
            "id": project.id,
            "name": project.name,
            "created_at": project.created_at,
            "archived_at": project.created_at + 90 * _DAY if project is projects[-1] else None,
            "status": "archived" if project is projects[-1] else "active",
        }
        for project in shown
    ]


def _owner(owner: User | ServiceAccount) -> Item:
    if isinstance(owner, ServiceAccount):
        account = {"id": owner.id, "name": owner.name, "role": owner.role, "created_at": owner.created_at}
        return {"type": "service_account", "service_account": account}
    user = {
        "id": owner.id,
        "name": owner.name,
        "email": owner.email,
        "role": owner.role,
        "created_at": owner.added_at,
    }
    return {"type": "user", "user": user}


def _redacted(prefix: str, key: Key) -> str:
    return f"{prefix}***{key.id[-4:]}"


def _project_keys(organization: Organization, project: Project | None, values: Values) -> Sequence[Item]:
    if project is None or values.get("owner_project_access") == ["inactive"]:
        return []
    return [
        {
            "object": "organization.project.api_key",
            "id": key.id,
            "name": key.name,
            "redacted_value": _redacted("sk-proj-", key),
            "created_at": key.created_at,
            "last_used_at": organization.now // _DAY * _DAY,
            "owner": _owner(key.owner),
            "owner_project_access": "active",
        }
        for key in organization.directory.keys
        if key.project_id == project.id
    ]


def _service_accounts(organization: Organization, project: Project | None, _: Values) -> Sequence[Item]:
    return [
        {
            "object": "organization.project.service_account",
            "id": account.id,
            "name": account.name,
            "role": account.role,
            "created_at": account.created_at,
        }
        for account in organization.directory.service_accounts
        if project is not None and account.project_id == project.id
    ]


def _admin_keys(organization: Organization, _: Project | None, __: Values) -> Sequence[Item]:
    return [
        {
            "object": "organization.admin_api_key",
            "id": key.id,
            "name": key.name,
            "redacted_value": _redacted("sk-admin-", key),
            "created_at": key.created_at,
            "last_used_at": organization.now // _DAY * _DAY,
            "expires_at": None,
            "owner": {
                "type": "user",
                "object": "organization.user",
                "id": key.owner.id,
                "name": key.owner.name,
                "role": key.owner.role,
                "created_at": key.owner.added_at if isinstance(key.owner, User) else key.owner.created_at,
            },
        }
        for key in sorted(organization.directory.admin_keys, key=lambda key: key.created_at)
    ]


def _invite(number: int, invite: Named) -> Item:
    status = ("pending", "accepted", "expired")[number % 3]
    return {
        "object": "organization.invite",
        "id": invite.id,
        "email": invite.name,
        "role": "reader",
        "status": status,
        "created_at": invite.created_at,
        "expires_at": invite.created_at + 7 * _DAY,
        "accepted_at": invite.created_at + _DAY if status == "accepted" else None,
        "projects": [],
    }


def _role(role: Named) -> Item:
    return {
        "object": "role",
        "id": role.id,
        "name": role.name,
        "description": f"May do what {role.name} says.",
        "permissions": ["api.groups.read", "api.groups.write"] if role.name == "owner" else ["api.groups.read"],
        "predefined_role": role.name in {"owner", "reader"},
        "resource_type": "api.organization",
    }


def _group(group: Named) -> Item:
    return {
        "id": group.id,
        "name": group.name,
        "group_type": "group",
        "is_scim_managed": False,
        "created_at": group.created_at,
    }


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("users", _users, params=frozenset({"emails[]"})),
    Endpoint("projects", _projects, params=frozenset({"include_archived"})),
    Endpoint("projects/{project_id}/api_keys", _project_keys, params=frozenset({"owner_project_access"})),
    Endpoint("projects/{project_id}/service_accounts", _service_accounts),
    Endpoint("admin_api_keys", _admin_keys, params=frozenset({"order"})),
    Endpoint("invites", lambda org, _, __: [_invite(*pair) for pair in enumerate(org.directory.invites)]),
    Endpoint(
        "roles",
        lambda org, _, __: [_role(role) for role in org.directory.roles],
        cursor="next",
        default_limit=1000,
        maximum=1000,
        params=frozenset({"order"}),
    ),
    Endpoint(
        "groups",
        lambda org, _, __: [_group(group) for group in org.directory.groups],
        cursor="next",
        default_limit=100,
        maximum=1000,
        params=frozenset({"order"}),
    ),
)
_PATHS = tuple(
    (re.compile("/v1/organization/" + endpoint.path.replace("{project_id}", "(?P<project_id>[^/]+)")), endpoint)
    for endpoint in ENDPOINTS
)


def answer(organization: Organization, path: str, query_string: str) -> bytes | BadRequest | None:
    """The body for an inventory path, a refusal, or None when no endpoint has this path."""
    for pattern, endpoint in _PATHS:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        project = None
        if project_id := match.groupdict().get("project_id"):
            projects = {project.id: project for project in organization.directory.projects}
            if project_id not in projects:
                return BadRequest(f"No project found with id '{project_id}'.", "project_id", "not_found", 404)
            project = projects[project_id]
        return _page(endpoint, organization, project, collect(query_string))
    return None


def _page(
    endpoint: Endpoint, organization: Organization, project: Project | None, values: Values
) -> bytes | BadRequest:
    if unknown := refuse_unknown(values, {"limit", "after", *endpoint.params}):
        return unknown
    limit = parse_limit(values, default=endpoint.default_limit, maximum=endpoint.maximum)
    if isinstance(limit, BadRequest):
        return limit
    order = values.get("order", ["asc"])[0]
    if order not in {"asc", "desc"}:
        return BadRequest(f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.", "order")
    items = list(endpoint.items(organization, project, values))
    if order == "desc":
        items.reverse()
    start = 0
    if after := values.get("after"):
        ids = [item["id"] for item in items]
        if after[0] not in ids:
            return BadRequest(f"Invalid 'after': no object with id '{after[0]}'.", "after")
        start = ids.index(after[0]) + 1
    page = items[start : start + limit]
    has_more = len(items) > start + limit
    last_id = page[-1]["id"] if page else None
    body: Item = {"object": "list", "data": page, "has_more": has_more}
    if endpoint.cursor == "next":
        body["next"] = last_id if has_more else None
    else:
        body |= {"first_id": page[0]["id"] if page else None, "last_id": last_id}
    return orjson.dumps(body)
