"""The values that pass between the stages. Times are whole Unix seconds, UTC, as the API gives them."""

from __future__ import annotations

from collections.abc import Iterable
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


class Row(msgspec.Struct, gc=False):
    """One row of `openai_audit_logs`: 46 fields, named and ordered as the table's columns.

    Times are Unix seconds. `rawLog` stays bytes: the driver writes bytes to a String column unchanged. An enrichment is
    (data, name, provider, type, value). `actor` may be shared with other rows: it is to be read, not changed. The
    schema's SQL is the truth; a test compares it with this class.
    """

    workspaceID: str
    sourceID: str
    sourceType: str
    sourceTTL: int
    receivedAt: int
    id: str
    eventTime: int
    eventName: str
    eventID: str
    srcIP: str = ""
    srcASCountryCode: str = ""
    srcASNumber: int = 0
    srcASOrganization: str = ""
    srcCity: str = ""
    srcConnectionType: str = ""
    srcISP: str = ""
    srcLatitude: float = 0.0
    srcLongitude: float = 0.0
    srcUserType: str = ""
    dstIP: str = ""
    dstASCountryCode: str = ""
    dstASNumber: int = 0
    dstASOrganization: str = ""
    dstCity: str = ""
    dstConnectionType: str = ""
    dstISP: str = ""
    dstLatitude: float = 0.0
    dstLongitude: float = 0.0
    dstUserType: str = ""
    actor: dict[str, str] = {}
    tags: dict[str, str] = {}
    resources: list[str] = []
    serviceName: str = ""
    enrichments: list[tuple[dict[str, str], str, str, str, str]] = []
    readOnly: bool = False
    rawLog: bytes = b""
    eventType: str = ""
    actorType: str = ""
    actorIP: str = ""
    actorUserID: str = ""
    actorUserEmail: str = ""
    apiKeyID: str = ""
    apiKeyType: str = ""
    serviceAccountID: str = ""
    projectID: str = ""
    projectName: str = ""


COLUMNS: tuple[str, ...] = Row.__struct_fields__


def columns(rows: Iterable[Row]) -> list[tuple[object, ...]]:
    """Turn rows into one tuple per column, in the table's order: the shape the driver writes fastest."""
    return list(zip(*map(msgspec.structs.astuple, rows), strict=True))


def iso(seconds: int) -> str:
    """Unix seconds as `2026-11-20T08:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
