"""The least that inserting costs: rows that are ready, column by column, and the driver alone.

    python ceiling.py replay FILE

The rows are prepared first; seconds and CPU seconds of the inserts are printed.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path

import clickhouse_connect

from shipper.load.rows import values
from shipper.load.tables import LOGS
from shipper.model import Lane, RawEvent, Row, Source, SourceID, WorkspaceID
from shipper.normalize import normalize

BATCH = 20_000


def batches(path: Path) -> list[list[list[object]]]:
    source = Source(WorkspaceID("default"), SourceID("openai"))
    now = int(time.time())
    with path.open("rb") as lines:
        found = [normalize(RawEvent(line.rstrip(b"\n"), Lane.ARCHIVE, source, now)) for line in lines]
    rows = [values(row) for row in found if isinstance(row, Row)]
    return [
        [[row[name] for row in rows[start : start + BATCH]] for name in LOGS.columns]
        for start in range(0, len(rows), BATCH)
    ]


def main(_kind: str, path: str) -> None:
    client = clickhouse_connect.get_client(
        host=os.environ["CLICKHOUSE_HOST"],
        port=int(os.environ["CLICKHOUSE_PORT"]),
        database=os.environ["CLICKHOUSE_DATABASE"],
        # The batches are large: the server need not wait for more before it writes.
        settings={"async_insert": 0},
    )
    context = client.create_insert_context(
        LOGS.name, column_names=LOGS.columns, column_type_names=LOGS.types, column_oriented=True
    )
    times = {name for name, kind in zip(LOGS.columns, LOGS.types, strict=True) if kind == "DateTime"}
    context.column_formats = dict.fromkeys(times, "int")
    ready = batches(Path(path))
    gc.collect()
    gc.freeze()
    wall, cpu = time.monotonic(), time.process_time()
    for batch in ready:
        context.data = batch
        client.data_insert(context)
    print(json.dumps({"wall": time.monotonic() - wall, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    main(*sys.argv[1:])
