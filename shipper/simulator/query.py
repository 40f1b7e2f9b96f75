"""The documented query parameters of the audit log, and the refusals for those that are not as documented."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from shipper.model import MAX_TIME, Lane
from shipper.simulator.events import Event

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_BOUNDS = ("effective_at[gt]", "effective_at[gte]", "effective_at[lt]", "effective_at[lte]")
_SETS = ("project_ids[]", "event_types[]", "actor_ids[]", "actor_emails[]", "resource_ids[]")
_KNOWN = {*_BOUNDS, *_SETS, "tenant_only", "limit", "after", "before"}


@dataclass(frozen=True, slots=True)
class BadRequest:
    """Why a request is answered with 400 (or `status`), in the words of the documented error object."""

    message: str
    param: str | None = None
    code: str | None = "invalid_value"
    status: int = 400


@dataclass(frozen=True, slots=True)
class Query:
    """A request for one page. `since` is inclusive and `until` exclusive; an empty set filters nothing."""

    lane: Lane = Lane.ORGANIZATION
    since: int = 0
    until: int = MAX_TIME + 1
    project_ids: frozenset[str] = frozenset()
    event_types: frozenset[str] = frozenset()
    actor_ids: frozenset[str] = frozenset()
    actor_emails: frozenset[str] = frozenset()
    resource_ids: frozenset[str] = frozenset()
    limit: int = 20
    after: str | None = None
    before: str | None = None
    filtered: bool = field(init=False)

    def __post_init__(self) -> None:
        sets = (self.project_ids, self.event_types, self.actor_ids, self.actor_emails, self.resource_ids)
        object.__setattr__(self, "filtered", any(sets))

    def matches(self, event: Event) -> bool:
        """Whether the event passes every set; time and lane are not looked at."""
        return (
            (not self.project_ids or (event.project_id != "" and event.project_id in self.project_ids))
            and (not self.event_types or event.type in self.event_types)
            and (not self.actor_ids or not self.actor_ids.isdisjoint(event.actor_ids))
            and (not self.actor_emails or not self.actor_emails.isdisjoint(event.actor_emails))
            and (not self.resource_ids or not self.resource_ids.isdisjoint(event.resource_ids))
        )


def collect(query_string: str) -> dict[str, list[str]]:
    """Parameter name to its values, percent-decoded."""
    values: dict[str, list[str]] = {}
    for name, value in parse_qsl(query_string, keep_blank_values=True):
        values.setdefault(name, []).append(value)
    return values


def parse_query(query_string: str, lanes: Mapping[str, Lane]) -> Query | BadRequest:
    """The query, or the first thing that is wrong with it. A parameter that no document names is wrong."""
    values = collect(query_string)
    if unknown := refuse_unknown(values, _KNOWN):
        return unknown
    tenant = values.get("tenant_only", ["false"])[0]
    if tenant not in {"true", "false"}:
        return BadRequest(f"Invalid 'tenant_only': expected a boolean, but got '{tenant}' instead.", "tenant_only")
    lane = Lane.TENANT if tenant == "true" else Lane.ORGANIZATION
    bounds = _bounds(values)
    if isinstance(bounds, BadRequest):
        return bounds
    limit = parse_limit(values, default=20, maximum=100)
    if isinstance(limit, BadRequest):
        return limit
    if wrong := _wrong_type(values.get("event_types[]", ()), lane, lanes):
        return wrong
    projects, types, ids, emails, resources = (frozenset(values.get(name, ())) for name in _SETS)
    return Query(
        lane,
        *bounds,
        project_ids=projects,
        event_types=types,
        actor_ids=ids,
        actor_emails=emails,
        resource_ids=resources,
        limit=limit,
        after=values["after"][0] if "after" in values else None,
        before=values["before"][0] if "before" in values else None,
    )


def refuse_unknown(values: Mapping[str, list[str]], known: Iterable[str]) -> BadRequest | None:
    for name in values:
        if name not in known:
            return BadRequest(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    return None


def parse_limit(values: Mapping[str, list[str]], *, default: int, maximum: int) -> int | BadRequest:
    text = values.get("limit", [str(default)])[0]
    if not _INTEGER.fullmatch(text):
        return BadRequest(f"Invalid 'limit': expected an integer, but got '{text}' instead.", "limit", "invalid_type")
    limit = int(text)
    if limit < 1:
        return BadRequest(
            f"Invalid 'limit': expected a value >= 1, but got {limit} instead.",
            "limit",
            "integer_below_min_value",
        )
    if limit > maximum:
        return BadRequest(
            f"Invalid 'limit': expected a value <= {maximum}, but got {limit} instead.",
            "limit",
            "integer_above_max_value",
        )
    return limit


def _bounds(values: Mapping[str, list[str]]) -> tuple[int, int] | BadRequest:
    since, until = 0, MAX_TIME + 1
    for name in _BOUNDS:
        for text in values.get(name, ()):
            if not _INTEGER.fullmatch(text):
                message = f"Invalid '{name}': expected an integer, but got '{text}' instead."
                return BadRequest(message, name, "invalid_type")
            bound = int(text)
            match name:
                case "effective_at[gt]":
                    since = max(since, bound + 1)
                case "effective_at[gte]":
                    since = max(since, bound)
                case "effective_at[lt]":
                    until = min(until, bound)
                case _:
                    until = min(until, bound + 1)
    return since, until


def _wrong_type(types: Iterable[str], lane: Lane, lanes: Mapping[str, Lane]) -> BadRequest | None:
    for name in types:
        if name not in lanes:
            return BadRequest(f"Invalid value: '{name}' is not a supported event type.", "event_types[]")
        if lane is Lane.TENANT and lanes[name] is not Lane.TENANT:
            message = f"Invalid value: '{name}' is not tenant-scoped; with tenant_only=true every event type must be."
            return BadRequest(message, "event_types[]")
    return None
