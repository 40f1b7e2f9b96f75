"""dlt's own source for REST APIs, or a generator over an archive, into its ClickHouse destination.

    python dlt_pipeline.py backfill|replay FILE

An event becomes a row of its id, type, time, project, actor and payload. Without that step dlt would make a column, or
a table, of every key of every type.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
from dlt.destinations import clickhouse
from dlt.sources.rest_api import rest_api_source

COLUMNS: Any = {
    "project": {"data_type": "json"},
    "actor": {"data_type": "json"},
    "payload": {"data_type": "json"},
}
PAGE = 1000

# Found to be the fastest here: files uncompressed, and small enough for two processes to have work.
SETTINGS = {
    "DATA_WRITER__DISABLE_COMPRESSION": "true",
    "EXTRACT__DATA_WRITER__FILE_MAX_ITEMS": "20000",
    "NORMALIZE__WORKERS": "2",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
}


def row(event: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": event["id"],
        "type": event["type"],
        "effective_at": event["effective_at"],
        "project": event.get("project"),
        "actor": event.get("actor"),
        "payload": event.get(event["type"]),
    }


def from_api() -> Any:
    """Both lanes, page after page, into one table."""
    lane = {
        "table_name": "events",
        "write_disposition": "append",
        "max_table_nesting": 0,
        "columns": COLUMNS,
        "processing_steps": [{"map": row}],
    }
    endpoint = {
        "path": "organization/audit_logs",
        "data_selector": "data",
        "paginator": {
            "type": "cursor",
            "cursor_path": "last_id",
            "cursor_param": "after",
            "has_more_path": "has_more",
        },
    }
    config: Any = {
        "client": {
            "base_url": os.environ["OPENAI_BASE_URL"],
            "auth": {"type": "bearer", "token": os.environ["OPENAI_ADMIN_KEY"]},
        },
        "resources": [
            {"name": "organization", **lane, "endpoint": {**endpoint, "params": {"limit": 100}}},
            {"name": "tenant", **lane, "endpoint": {**endpoint, "params": {"limit": 100, "tenant_only": "true"}}},
        ],
    }
    return rest_api_source(config)


def from_archive(path: str) -> Any:
    return dlt.resource(
        pages(path),
        name="archive",
        table_name="events",
        write_disposition="append",
        max_table_nesting=0,
        columns=COLUMNS,
    )


def pages(path: str) -> Iterator[list[dict[str, Any]]]:
    with Path(path).open("rb") as lines:
        page = []
        for line in lines:
            page.append(row(json.loads(line)))
            if len(page) == PAGE:
                yield page
                page = []
        yield page


def main(kind: str, path: str) -> None:
    os.environ.update(SETTINGS)
    credentials = {
        "host": os.environ["CLICKHOUSE_HOST"],
        "http_port": int(os.environ["CLICKHOUSE_PORT"]),
        "port": int(os.environ["CLICKHOUSE_NATIVE_PORT"]),
        "username": "default",
        "password": "",
        "database": os.environ["CLICKHOUSE_DATABASE"],
        "secure": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline(
            "bench", destination=clickhouse(credentials=credentials), dataset_name="audit", pipelines_dir=folder
        )
        pipeline.run(from_api() if kind == "backfill" else from_archive(path)).raise_on_failed_jobs()


if __name__ == "__main__":
    main(*sys.argv[1:])
