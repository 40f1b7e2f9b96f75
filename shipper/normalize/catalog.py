"""The event catalog, `schemas/openai/events.json`, read once: what each event type is and which resources it names.

One entry per type: `lane`, `category` (a key of CATEGORIES), `title`, `readOnly`, and `resources`: where in the payload
the affected resources are. A resource has a `type` and the paths of its `id`, `name` and `email`; `typePath` is where
the payload itself says the type, and wins over `type`. A path is keys joined by dots. `list[].id` reads every item of
a list. The API puts the same facts under `data` or `changes_requested`, and its own example disagrees with its schema:
a path that begins with one of them is also read under the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import msgspec

from shipper.assets import schemas
from shipper.model import Kind, Lane

CATEGORIES: Mapping[str, str] = MappingProxyType(
    {
        "api_key": "API keys of users, service accounts and administrators",
        "authentication": "sign-ins, sign-outs, sessions and tokens",
        "billing": "billing details, alerts and overage",
        "certificate": "certificates for mutual TLS",
        "data": "external encryption keys and external storage",
        "federation": "single sign-on, SCIM, directories and domains",
        "group": "groups and their members",
        "limit": "rate limits and usage limits",
        "model": "access to fine-tuned models",
        "network": "IP allowlists and tunnels",
        "organization": "settings of the organization, its tenant and workspaces",
        "policy": "policies and what they are attached to",
        "project": "projects",
        "resource": "resources of no kind named above",
        "role": "roles, their assignments, and grants on resources",
        "service_account": "service accounts",
        "user": "users, memberships and invitations",
        "workload_identity": "workload identity providers, mappings and bindings",
    }
)

# The keys from the payload down to a value; several when the value may be in more than one place.
Path = tuple[tuple[str, ...], ...]

_TWINS = {"data": "changes_requested", "changes_requested": "data"}


class ResourcePaths(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One resource of an entry, as it is written in the file."""

    type: str
    id: str
    name: str = ""
    email: str = ""
    type_path: str = ""


class EventType(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One entry, as it is written in the file."""

    type: str
    lane: Lane
    category: str
    title: str
    read_only: bool
    resources: tuple[ResourcePaths, ...]


class ResourceReader(msgspec.Struct, frozen=True):
    """One resource, with its paths compiled. `items` is the key of the list to read each item of, or `''`.

    `plain` says that an `id` in the payload is all there is to read, as in most entries: the short way.
    """

    type: str
    items: str
    id: Path
    name: Path
    email: Path
    type_path: Path
    plain: bool


class Known(msgspec.Struct, frozen=True):
    """What normalize needs of one event type."""

    kind: Kind
    resources: tuple[ResourceReader, ...]


@cache
def event_types() -> tuple[EventType, ...]:
    """Every entry in the file's order. Raises ValueError for a file that breaks the rules above."""
    entries = msgspec.json.decode(schemas("openai", "events.json").read_bytes(), type=tuple[EventType, ...])
    for entry in entries:
        if entry.category not in CATEGORIES:
            raise ValueError(f"events.json: {entry.type}: unknown category {entry.category!r}")
    return entries


@cache
def known_types() -> dict[str, Known]:
    """The catalog compiled, by type."""
    return {
        entry.type: Known(
            Kind(entry.type, entry.read_only, {"lane": entry.lane.value, "category": entry.category}),
            tuple(map(compile_resource, entry.resources)),
        )
        for entry in event_types()
    }


def compile_resource(paths: ResourcePaths) -> ResourceReader:
    """Raises ValueError when the paths of one resource lead into different lists."""
    items = paths.id.partition("[].")[0] if "[]." in paths.id else ""
    compiled = []
    for path in (paths.id, paths.name, paths.email, paths.type_path):
        head, in_list, tail = path.rpartition("[].")
        if path and head != items:
            raise ValueError(f"{path!r} leads into another list than {paths.id!r}")
        compiled.append(_compile_path(tail if in_list else path))
    id_path, name_path, email_path, type_path = compiled
    plain = paths == ResourcePaths(paths.type, "id")
    return ResourceReader(paths.type, items, id_path, name_path, email_path, type_path, plain)


def _compile_path(path: str) -> Path:
    if not path:
        return ()
    keys = tuple(path.split("."))
    return (keys, (_TWINS[keys[0]], *keys[1:])) if keys[0] in _TWINS else (keys,)
