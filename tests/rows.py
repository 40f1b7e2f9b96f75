"""Rows by the names of the table's columns: as a test writes them, and as it looks at them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from shipper.load.rows import values
from shipper.model import Actor, Client, Kind, Place, Project, Row, Source

# The table's columns, in its order.
COLUMNS = (
    *("workspaceID", "sourceID", "sourceType", "sourceTTL", "receivedAt", "id", "eventTime", "eventName", "eventID"),
    *("srcIP", "srcASCountryCode", "srcASNumber", "srcASOrganization", "srcCity", "srcConnectionType", "srcISP"),
    *("srcLatitude", "srcLongitude", "srcUserType"),
    *("dstIP", "dstASCountryCode", "dstASNumber", "dstASOrganization", "dstCity", "dstConnectionType", "dstISP"),
    *("dstLatitude", "dstLongitude", "dstUserType"),
    *("actor", "tags", "resources", "serviceName", "enrichments", "readOnly", "rawLog", "eventType", "actorType"),
    *("actorIP", "actorUserID", "actorUserEmail", "apiKeyID", "apiKeyType", "serviceAccountID"),
    *("projectID", "projectName"),
)
_NUMBERS = {"dstASNumber": 0, "dstLatitude": 0.0, "dstLongitude": 0.0}
# What no row says, and the table fills in.
_DESTINATION: dict[str, Any] = {name: _NUMBERS.get(name, "") for name in COLUMNS if name.startswith("dst")}

_PARTS: dict[str, tuple[type[Any], dict[str, str]]] = {
    "source": (Source, {"workspaceID": "workspace_id", "sourceID": "source_id", "sourceTTL": "retention_days"}),
    "actor": (
        Actor,
        {
            "actor": "identity",
            "actorType": "type",
            "actorUserID": "user_id",
            "actorUserEmail": "user_email",
            "apiKeyID": "api_key_id",
            "apiKeyType": "api_key_type",
            "serviceAccountID": "service_account_id",
        },
    ),
    "place": (
        Place,
        {
            "srcIP": "ip",
            "srcASCountryCode": "country",
            "srcASNumber": "as_number",
            "srcASOrganization": "as_organization",
            "srcCity": "city",
            "srcConnectionType": "connection_type",
            "srcISP": "isp",
            "srcLatitude": "latitude",
            "srcLongitude": "longitude",
            "srcUserType": "user_type",
            "actorIP": "address",
        },
    ),
    "kind": (Kind, {"eventType": "name", "readOnly": "read_only"}),
    "client": (Client, {}),
    "project": (Project, {"projectID": "id", "projectName": "name"}),
}
_OWN = {
    "receivedAt": "received_at",
    "id": "id",
    "eventTime": "event_time",
    "eventID": "event_id",
    "tags": "tags",
    "resources": "resources",
    "rawLog": "raw",
    "enrichments": "enrichments",
}
_DEFAULTS: dict[str, Any] = {
    "workspaceID": "w",
    "sourceID": "s",
    "receivedAt": 0,
    "id": "r",
    "eventTime": 0,
    "eventID": "e",
    "tags": {},
    "resources": [],
    "rawLog": b"",
}


def make_row(**values: Any) -> Row:
    """A row of these columns; a column that no row can choose is a KeyError."""
    rest = _DEFAULTS | values
    made = {
        name: kind(**{field: rest.pop(column) for column, field in fields.items() if column in rest})
        for name, (kind, fields) in _PARTS.items()
    }
    return Row(**made, **{_OWN[column]: value for column, value in rest.items()})


def flat(row: Row) -> dict[str, Any]:
    """The row's 46 columns, as the table has them."""
    found = _DESTINATION | values(row)
    return {name: found[name] for name in COLUMNS}


def view(row: Row) -> Any:
    """The row's 46 columns as attributes."""
    return SimpleNamespace(**flat(row))
