"""The bodies as they come into a raw table, and one INSERT SELECT that takes them apart inside of ClickHouse.

python elt.py backfill|replay FILE
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

# Of bodies, for one insert.
BATCH = 8 * 1024 * 1024

EVENT = """Tuple(id String, type String, effective_at UInt32, project Tuple(id String, name String),
    actor Tuple(type String,
        session Tuple(user Tuple(id String, email String), ip_address String, user_agent String, ja3 String, ja4 String,
            ip_address_details Tuple(country String, city String, region String, region_code String, asn String,
                latitude String, longitude String)),
        api_key Tuple(id String, type String, user Tuple(id String, email String),
            service_account Tuple(id String))))"""

# The columns that the event itself can fill; the others keep the table's defaults.
NORMALIZE = f"""
INSERT INTO openai_audit_logs (workspaceID, sourceID, sourceType, receivedAt, id, eventTime, eventName, eventID, srcIP,
    srcASCountryCode, srcASNumber, srcCity, srcLatitude, srcLongitude, actor, tags, resources, serviceName, rawLog,
    eventType, actorType, actorIP, actorUserID, actorUserEmail, apiKeyID, apiKeyType, serviceAccountID, projectID,
    projectName)
WITH JSONExtract(raw, '{EVENT}') AS event,
    event.actor.session AS session, event.actor.api_key AS key, session.ip_address_details AS place,
    if(session.user.id != '', session.user, key.user) AS person,
    if(person.id != '', person.id, key.service_account.id) AS who,
    JSONExtractString(raw, event.type, 'id') AS target
SELECT 'default', 'openai', 'openai', now(), event.id, event.effective_at, event.type, event.id, session.ip_address,
    substring(place.country, 1, 2), toUInt32OrZero(place.asn), place.city,
    toFloat64OrZero(place.latitude), toFloat64OrZero(place.longitude),
    mapFilter((name, value) -> value != '', map('id', who, 'email', person.email)),
    mapFilter((name, value) -> value != '',
        map('userAgent', session.user_agent, 'ja3', session.ja3, 'ja4', session.ja4, 'region', place.region)),
    if(target = '', [], [toJSONString(map('type', splitByChar('.', event.type)[1], 'id', target))]), 'openai', raw,
    event.type, event.actor.type, session.ip_address, person.id, person.email, key.id, key.type,
    key.service_account.id, event.project.id, event.project.name
"""
FROM_PAGES = "FROM raw_bodies ARRAY JOIN JSONExtractArrayRaw(body, 'data') AS raw"
FROM_LINES = "FROM (SELECT body AS raw FROM raw_bodies)"


def clickhouse() -> http.client.HTTPConnection:
    return http.client.HTTPConnection(os.environ["CLICKHOUSE_HOST"], int(os.environ["CLICKHOUSE_PORT"]), timeout=600)


def execute(connection: http.client.HTTPConnection, sql: str, body: object = b"", headers: object = ()) -> None:
    database = os.environ["CLICKHOUSE_DATABASE"]
    # The batches are large: the server need not wait for more before it writes.
    target = f"/?database={database}&async_insert=0&query={quote(sql)}"
    connection.request("POST", target, body, dict(headers))  # type: ignore[arg-type,call-overload]
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise SystemExit(said.decode())


def bodies() -> Iterator[bytes]:
    """Both lanes, page after page."""
    base = urlsplit(os.environ["OPENAI_BASE_URL"])
    api = http.client.HTTPConnection(base.hostname or "", base.port, timeout=60)
    key = {"Authorization": f"Bearer {os.environ['OPENAI_ADMIN_KEY']}"}
    for lane in ({}, {"tenant_only": "true"}):
        query: dict[str, str] = {"limit": "100", **lane}
        while True:
            api.request("GET", f"{base.path}/organization/audit_logs?{urlencode(query)}", headers=key)
            body = api.getresponse().read()
            yield body
            # The end of the body says how it goes on; the events before it are not looked at.
            tail = json.loads(b"{" + body[body.rindex(b'"first_id"') :])
            if not tail["has_more"]:
                break
            query["after"] = tail["last_id"]


def main(kind: str, path: str) -> None:
    connection = clickhouse()
    execute(connection, "CREATE TABLE raw_bodies (body String CODEC(ZSTD)) ENGINE = MergeTree ORDER BY tuple()")
    insert = "INSERT INTO raw_bodies FORMAT LineAsString"
    if kind == "replay":
        with Path(path).open("rb") as lines:
            execute(connection, insert, lines, {"Content-Length": str(Path(path).stat().st_size)})
        execute(connection, NORMALIZE + FROM_LINES)
        return
    waiting: list[bytes] = []
    for body in bodies():
        # The API's events may hold line feeds between the values of a document, and only there.
        waiting.append(body.replace(b"\n", b" "))
        if sum(map(len, waiting)) >= BATCH:
            execute(connection, insert, b"\n".join(waiting))
            waiting = []
    if waiting:
        execute(connection, insert, b"\n".join(waiting))
    execute(connection, NORMALIZE + FROM_PAGES)


if __name__ == "__main__":
    main(*sys.argv[1:])
