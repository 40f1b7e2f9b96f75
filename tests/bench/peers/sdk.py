"""What a user writes in an afternoon: the official SDK's pages, or an archive's lines, as rows into ClickHouse.

python sdk.py backfill|replay FILE
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

import clickhouse_connect
from openai import OpenAI

BATCH = 10_000
COLUMNS = (
    *("workspaceID", "sourceID", "sourceType", "receivedAt", "id", "eventTime", "eventName", "eventID", "srcIP"),
    *("srcASCountryCode", "srcASNumber", "srcCity", "srcLatitude", "srcLongitude", "actor", "tags", "resources"),
    *("serviceName", "rawLog", "eventType", "actorType", "actorIP", "actorUserID", "actorUserEmail", "apiKeyID"),
    *("apiKeyType", "serviceAccountID", "projectID", "projectName"),
)


def from_api() -> Iterator[dict[str, Any]]:
    """Both lanes, page after page."""
    logs = OpenAI().admin.organization.audit_logs
    for event in chain(logs.list(limit=100), logs.list(limit=100, tenant_only=True)):
        yield event.to_dict(mode="json")


def from_archive(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        yield from map(json.loads, lines)


def row(event: dict[str, Any]) -> list[object]:
    """The columns that the event itself can fill; the others keep the table's defaults."""
    actor = event.get("actor") or {}
    session = actor.get("session") or {}
    key = actor.get("api_key") or {}
    user = session.get("user") or key.get("user") or {}
    account = (key.get("service_account") or {}).get("id", "")
    place = session.get("ip_address_details") or {}
    project = event.get("project") or {}
    payload = event.get(event["type"]) or {}
    who = {"id": user.get("id", account), "email": user.get("email", "")}
    tags = {name: session[name] for name in ("user_agent", "ja3", "ja4") if session.get(name)}
    targets = [json.dumps({"type": event["type"].partition(".")[0], "id": payload["id"]})] if "id" in payload else []
    address = session.get("ip_address", "")
    return [
        *("default", "openai", "openai", datetime.now(UTC), event["id"]),
        *(datetime.fromtimestamp(event["effective_at"], UTC), event["type"], event["id"], address),
        *(place.get("country", "")[:2], int(place.get("asn") or 0), place.get("city", "")),
        *(float(place.get("latitude") or 0), float(place.get("longitude") or 0)),
        *({name: value for name, value in who.items() if value}, tags, targets, "openai", json.dumps(event)),
        *(event["type"], actor.get("type", ""), address, user.get("id", ""), user.get("email", "")),
        *(key.get("id", ""), key.get("type", ""), account, project.get("id", ""), project.get("name", "")),
    ]


def main(kind: str, path: str) -> None:
    client = clickhouse_connect.get_client(
        host=os.environ["CLICKHOUSE_HOST"],
        port=int(os.environ["CLICKHOUSE_PORT"]),
        database=os.environ["CLICKHOUSE_DATABASE"],
        # The batches are large: the server need not wait for more before it writes.
        settings={"async_insert": 0},
    )
    events: Iterable[dict[str, Any]] = from_api() if kind == "backfill" else from_archive(Path(path))
    rows = map(row, events)
    while batch := list(islice(rows, BATCH)):
        client.insert("openai_audit_logs", batch, column_names=COLUMNS)


if __name__ == "__main__":
    main(*sys.argv[1:])
