"""Rows of `openai_audit_logs`: what of a Row each column holds, and the bytes that are inserted.

What many rows share (source, kind, actor, client, place, project) is one object in all of them, and is written to bytes
once. So the columns are inserted in the order of what they are of, not in the order of the table.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from shipper.load.rowbinary import DOES_NOT_FIT, Unwritable, length, pairs, write
from shipper.model import SOURCE_TYPE, Row

_TEXT = "String"
_MAP = "Map(String, String)"
_TEXTS = "Array(String)"
_ENRICHMENTS = "Array(Tuple(data Map(String, String), name String, provider String, type String, value String))"

# So many parts are kept as bytes, none larger than this: more than normalize remembers of all kinds together (36,864),
# so that what rows still share is still here. Beyond it all are written anew as they come.
_KEPT = 40_000
_KEPT_SIZE = 1024


class Column(NamedTuple):
    """One column: its type, and where its value is in the row, or in the part of the row that the column is of."""

    name: str
    type: str
    read: Callable[[Any], Any]


def _openai(_part: object) -> str:
    return SOURCE_TYPE


_SOURCE = (
    Column("workspaceID", _TEXT, attrgetter("workspace_id")),
    Column("sourceID", _TEXT, attrgetter("source_id")),
    Column("sourceType", _TEXT, _openai),
    Column("sourceTTL", "UInt32", attrgetter("retention_days")),
    Column("serviceName", _TEXT, _openai),
)
_KIND = (
    Column("eventName", _TEXT, attrgetter("name")),
    Column("eventType", _TEXT, attrgetter("name")),
    Column("readOnly", "Bool", attrgetter("read_only")),
)
_ACTOR = (
    Column("actor", _MAP, attrgetter("identity")),
    Column("actorType", _TEXT, attrgetter("type")),
    Column("actorUserID", _TEXT, attrgetter("user_id")),
    Column("actorUserEmail", _TEXT, attrgetter("user_email")),
    Column("apiKeyID", _TEXT, attrgetter("api_key_id")),
    Column("apiKeyType", _TEXT, attrgetter("api_key_type")),
    Column("serviceAccountID", _TEXT, attrgetter("service_account_id")),
)
_PLACE = (
    Column("srcIP", _TEXT, attrgetter("ip")),
    Column("srcASCountryCode", _TEXT, attrgetter("country")),
    Column("srcASNumber", "UInt32", attrgetter("as_number")),
    Column("srcASOrganization", _TEXT, attrgetter("as_organization")),
    Column("srcCity", _TEXT, attrgetter("city")),
    Column("srcConnectionType", _TEXT, attrgetter("connection_type")),
    Column("srcISP", _TEXT, attrgetter("isp")),
    Column("srcLatitude", "Float64", attrgetter("latitude")),
    Column("srcLongitude", "Float64", attrgetter("longitude")),
    Column("srcUserType", _TEXT, attrgetter("user_type")),
    Column("actorIP", _TEXT, attrgetter("address")),
)
_PROJECT = (
    Column("projectID", _TEXT, attrgetter("id")),
    Column("projectName", _TEXT, attrgetter("name")),
)
_EVENT = (
    Column("receivedAt", "DateTime", attrgetter("received_at")),
    Column("eventTime", "DateTime", attrgetter("event_time")),
    Column("id", _TEXT, attrgetter("id")),
    Column("eventID", _TEXT, attrgetter("event_id")),
    Column("tags", _MAP, lambda row: {**row.kind.tags, **row.place.tags, **row.client.tags, **row.tags}),
    Column("resources", _TEXTS, attrgetter("resources")),
    Column("enrichments", _ENRICHMENTS, attrgetter("enrichments")),
    Column("rawLog", _TEXT, attrgetter("raw")),
)
_PARTS = {"source": _SOURCE, "kind": _KIND, "actor": _ACTOR, "place": _PLACE, "project": _PROJECT}

COLUMNS = (*(column for part in _PARTS.values() for column in part), *_EVENT)
"""All that is inserted, in this order.

The columns dst* are not among them: the API tells nothing about a destination, and the table has the defaults for them.
The schema's SQL is the truth; a test compares it with this.
"""


def values(row: Row) -> dict[str, Any]:
    """What the row has in each column."""
    found = {column.name: column.read(getattr(row, part)) for part, its in _PARTS.items() for column in its}
    return found | {column.name: column.read(row) for column in _EVENT}


class _Cells(NamedTuple):
    """A part of rows as bytes: its columns, its share of `tags`, and how many tags that are. Keeps the part alive."""

    part: object
    columns: bytes
    tags: bytes
    tag_count: int


_times = struct.Struct("<II").pack
_texts = write(_TEXTS)
_enrichments = write(_ENRICHMENTS)
_NONE = length(0)


class Encoder:
    """Writes rows to bytes. Keeps the parts that rows share, by identity: the same object is the same bytes."""

    def __init__(self) -> None:
        self._cells: dict[int, _Cells] = {}

    def encode(self, row: Row) -> tuple[bytes, ...]:
        """The row in RowBinary, its columns in the order of COLUMNS, in pieces. Raises Unwritable.

        In pieces it takes less memory: most are the same objects in many rows, and the last is `row.raw`.
        """
        cells = self._cells
        tags, resources, enrichments, raw = row.tags, row.resources, row.enrichments, row.raw
        try:
            source = cells.get(id(row.source)) or self._write(row.source, _SOURCE)
            kind = cells.get(id(row.kind)) or self._write(row.kind, _KIND)
            actor = cells.get(id(row.actor)) or self._write(row.actor, _ACTOR)
            client = cells.get(id(row.client)) or self._write(row.client, ())
            place = cells.get(id(row.place)) or self._write(row.place, _PLACE)
            project = cells.get(id(row.project)) or self._write(row.project, _PROJECT)
            row_id, event_id = row.id.encode(), row.event_id.encode()
            return (
                source.columns,
                kind.columns,
                actor.columns,
                place.columns,
                project.columns,
                _times(row.received_at, row.event_time),
                length(len(row_id)),
                row_id,
                length(len(event_id)),
                event_id,
                length(kind.tag_count + place.tag_count + client.tag_count + len(tags)),
                kind.tags,
                place.tags,
                client.tags,
                pairs(tags) if tags else b"",
                _texts(resources) if resources else _NONE,
                _enrichments(enrichments) if enrichments else _NONE,
                length(len(raw)),
                raw,
            )
        except DOES_NOT_FIT as error:
            raise Unwritable(f"a value of event {row.event_id!r} does not fit its column") from error

    def _write(self, part: Any, columns: Sequence[Column]) -> _Cells:
        tags = getattr(part, "tags", {})
        whole = b"".join([write(column.type)(column.read(part)) for column in columns])
        cells = _Cells(part, whole, pairs(tags), len(tags))
        if len(cells.columns) + len(cells.tags) <= _KEPT_SIZE:
            if len(self._cells) >= _KEPT:
                self._cells.clear()
            self._cells[id(part)] = cells
        return cells
