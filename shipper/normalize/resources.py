"""The column `resources`: what an event acted on, one compact JSON object each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import orjson

from shipper.normalize.catalog import Path, ResourceReader
from shipper.normalize.fields import Object, text

# An event may be megabytes, and rawLog has all of it. What is listed beside it stays small.
MAX_RESOURCES = 1000
MAX_TEXT = 512

# A resource's type and id, and what else is known of it.
Found = dict[tuple[str, str], dict[str, str]]


def resources_of(
    payload: Object, readers: tuple[ResourceReader, ...], project: tuple[str, str], wrong: list[str]
) -> tuple[list[str], bool]:
    """The resources in the catalog's order, the project last unless it is one of them, none twice.

    The flag says that something was left out for its size: a resource with an id over MAX_TEXT characters, a longer
    name or e-mail address, or what exceeds MAX_RESOURCES.
    """
    found: Found = {}
    cut = False
    if payload:
        for reader in readers:
            if reader.plain:
                cut |= _add(found, reader.type, text(payload, "id", "payload.id", wrong))
                continue
            for holder in _items(payload, reader.items, wrong) if reader.items else (payload,):
                cut |= _add(
                    found,
                    _read(holder, reader.type_path, wrong) or reader.type,
                    _read(holder, reader.id, wrong),
                    _read(holder, reader.name, wrong),
                    _read(holder, reader.email, wrong),
                )
    identity, name = project
    alone = bool(identity) and ("project", identity) not in found and len(found) < MAX_RESOURCES
    alone = alone and len(identity) <= MAX_TEXT and len(name) <= MAX_TEXT
    if not alone:
        cut |= _add(found, "project", identity, name)
    texts = [orjson.dumps(resource).decode() for resource in found.values()]
    if alone:
        texts.append(_project(identity, name))
    return texts, cut


@lru_cache(maxsize=4096)
def _project(identity: str, name: str) -> str:
    # Many events name the same few projects.
    named = {"name": name} if name else {}
    return orjson.dumps({"type": "project", "id": identity, **named}).decode()


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
    if not identity:
        return False
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
