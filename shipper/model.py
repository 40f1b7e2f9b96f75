"""The values that pass between the stages. Times are whole Unix seconds, UTC, as the API gives them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NewType

import msgspec

WorkspaceID = NewType("WorkspaceID", str)
SourceID = NewType("SourceID", str)
EventID = NewType("EventID", str)
RunID = NewType("RunID", str)

# ClickHouse's DateTime is an unsigned 32-bit count of seconds: 1970-01-01 to 2106-02-07.
MAX_TIME = 2**32 - 1

SOURCE_TYPE = "openai"


class Lane(StrEnum):
    """Where an event was read. The API answers two separate questions (docs: `tenant_only`); an archive is a file."""

    ORGANIZATION = "organization"
    TENANT = "tenant"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class Source:
    """One organization's identity in the table. `source_id` stays the same for the life of the connection."""

    workspace_id: WorkspaceID
    source_id: SourceID
    retention_days: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A half-open interval `[start, end)` of effective_at, in Unix seconds. The only interval type there is."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.start > self.end:
            raise ValueError(f"a window ends at or after its start, got [{self.start}, {self.end})")

    def __str__(self) -> str:
        return f"[{iso(self.start)}, {iso(self.end)})"

    @property
    def seconds(self) -> int:
        return self.end - self.start


class RawEvent(msgspec.Struct, frozen=True, gc=False):
    """One event as received. `raw` is the slice of the body, byte for byte; it becomes `rawLog`."""

    raw: bytes
    lane: Lane
    source: Source
    received_at: int


class Page(msgspec.Struct, frozen=True):
    """One answer of the API, or one piece of an archive.

    `events` are slices of the body, unchanged, in the order received. `last_id` is the cursor for the next page.
    """

    events: tuple[bytes, ...]
    has_more: bool = False
    last_id: str | None = None


class DeadLetter(msgspec.Struct, frozen=True):
    """Bytes that cannot be a row. `reason` is one of a small set of labels, `detail` is for a person."""

    event: RawEvent
    reason: str
    detail: str


class Kind(msgspec.Struct, frozen=True, gc=False):
    """The type of an event, and the tags that all its events have."""

    name: str = ""
    read_only: bool = False
    tags: dict[str, str] = {}


class Actor(msgspec.Struct, frozen=True, gc=False):
    """Who acted. `identity` is the column `actor`."""

    type: str = ""
    user_id: str = ""
    user_email: str = ""
    api_key_id: str = ""
    api_key_type: str = ""
    service_account_id: str = ""
    identity: dict[str, str] = {}


class Client(msgspec.Struct, frozen=True, gc=False):
    """With what: the tags that tell a session's software and TLS fingerprints."""

    tags: dict[str, str] = {}


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where from: the src* columns, actorIP, and the tags that go with them. `''` and 0 are unknown.

    `ip` is canonical, `address` is what the event says.
    """

    country: str = ""
    as_number: int = 0
    as_organization: str = ""
    city: str = ""
    connection_type: str = ""
    isp: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    user_type: str = ""
    ip: str = ""
    address: str = ""
    tags: dict[str, str] = {}


class Project(msgspec.Struct, frozen=True, gc=False):
    """The project an event belongs to."""

    id: str = ""
    name: str = ""


class Row(msgspec.Struct, gc=False):
    """One row of `openai_audit_logs`. What many rows have in common they share: it is to be read, not changed.

    Times are Unix seconds. `tags` are those that no part has. `raw` stays bytes. An enrichment
    is (data, name, provider, type, value).
    """

    source: Source
    received_at: int
    id: str
    event_time: int
    event_id: str
    kind: Kind
    actor: Actor
    client: Client
    place: Place
    project: Project
    tags: dict[str, str]
    resources: list[str]
    raw: bytes
    enrichments: list[tuple[dict[str, str], str, str, str, str]] = []


def iso(seconds: int) -> str:
    """Unix seconds as `2026-11-20T08:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
