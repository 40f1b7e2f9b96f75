"""The column `resources`: what an event acted on, one compact JSON object each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import msgspec
import orjson

from shipper.model import Project
from shipper.normalize.catalog import Path, ResourceReader
from shipper.normalize.fields import Object, table, text

# An event may be megabytes, and rawLog has all of it. What is listed beside it stays small.
MAX_RESOURCES = 1000
MAX_TEXT = 512

# Projects in so many bytes are remembered: many events name the same few.
_REMEMBERED_SIZE = 2048
_REMEMBERED = 4096

# A resource's type and id, and what else is known of it.
Found = dict[tuple[str, str], dict[str, str]]


class ProjectReading(msgspec.Struct, frozen=True, gc=False):
    """A project, the text of the resource that it is, and what could not be read."""

    project: Project = Project()
    resource: str = ""
    wrong: tuple[str, ...] = ()


NO_PROJECT = ProjectReading()


def project_of(document: Object) -> ProjectReading:
    """The project, empty when the event names none."""
    wrong: list[str] = []
    project = table(document, "project", "project", wrong)
    identity = text(project, "id", "project.id", wrong)
    name = text(project, "name", "project.name", wrong)
    named = {"name": name} if name else {}
    resource = ""
    if identity and len(identity) <= MAX_TEXT and len(name) <= MAX_TEXT:
        resource = orjson.dumps({"type": "project", "id": identity, **named}).decode()
    return ProjectReading(Project(identity, name), resource, tuple(wrong))


def project_in(raw: bytes) -> ProjectReading:
    """The project in these bytes, the value of an event's `project`. Raises ValueError when they are not plain JSON."""
    return _remembered(raw) if len(raw) <= _REMEMBERED_SIZE else project_of({"project": orjson.loads(raw)})


@lru_cache(_REMEMBERED)
def _remembered(raw: bytes) -> ProjectReading:
    return project_of({"project": orjson.loads(raw)})


def resources_of(
    payload: object, readers: tuple[ResourceReader, ...], named: ProjectReading, wrong: list[str]
) -> tuple[list[str], bool]:
    """The resources in the catalog's order, the project last unless it is one of them, none twice.

    The flag says that something was left out for its size: a resource with an id over MAX_TEXT characters, a longer
    name or e-mail address, or what exceeds MAX_RESOURCES.
    """
    if not payload and named.resource:
        return [named.resource], False
    found: Found = {}
    cut = False
    if type(payload) is dict and payload:
        for reader in readers:
            if reader.plain:
                if identity := text(payload, "id", "payload.id", wrong):
                    cut |= _add(found, reader.type, identity)
                continue
            for holder in _items(payload, reader.items, wrong) if reader.items else (payload,):
                if identity := _read(holder, reader.id, wrong):
                    kind = _read(holder, reader.type_path, wrong) or reader.type
                    name, email = _read(holder, reader.name, wrong), _read(holder, reader.email, wrong)
                    cut |= _add(found, kind, identity, name, email)
    project = named.project
    alone = bool(named.resource) and ("project", project.id) not in found and len(found) < MAX_RESOURCES
    if project.id and not alone:
        cut |= _add(found, "project", project.id, project.name)
    texts = [orjson.dumps(resource).decode() for resource in found.values()] if found else []
    if alone:
        texts.append(named.resource)
    return texts, cut


def _items(payload: Object, items: str, wrong: list[str]) -> Iterator[Object]:
    listed = payload.get(items)
    if type(listed) is list:
        for item in listed:
            if type(item) is dict:
                yield item
            elif item is not None:
                wrong.append(f"payload.{items}[]")
    elif listed is not None:
        wrong.append(f"payload.{items}")


def _read(holder: Object, path: Path, wrong: list[str]) -> str:
    for keys in path:
        value: object = holder
        for key in keys:
            value = value.get(key) if type(value) is dict else None
        if type(value) is str:
            return value
        if value is not None:
            wrong.append(f"payload.{'.'.join(keys)}")
    return ""


def _add(found: Found, kind: str, identity: str, name: str = "", email: str = "") -> bool:
    """Add one resource, or what is new of one that is there; True when something was too big to."""
    big = len(name) > MAX_TEXT or len(email) > MAX_TEXT
    known = found.get((kind, identity))
    if known is None:
        if len(found) >= MAX_RESOURCES or len(identity) > MAX_TEXT or len(kind) > MAX_TEXT:
            return True
        known = found[kind, identity] = {"type": kind, "id": identity}
    if name and len(name) <= MAX_TEXT:
        known.setdefault("name", name)
    if email and len(email) <= MAX_TEXT:
        known.setdefault("email", email)
    return big
