"""`shipper check`: is everything a run needs in place? Each answer is ok, or the reason and what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from shipper.config import Settings, SourceSettings
from shipper.enrich import OLD_AFTER_DAYS, DatabaseInfo, Verdict, open_enricher, try_out
from shipper.errors import ApiRefused, ApiRejected, DatabaseRefused, ExitCode, NoDatabase, ShipperError
from shipper.fetch.audit_logs import SWITCHED_ON, probe
from shipper.fetch.client import AdminClient
from shipper.fetch.ratelimit import RateLimiter
from shipper.load import schema
from shipper.load.clickhouse import Database, connect
from shipper.model import Lane, iso


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of the check. `fix` is empty when there is nothing to do; `exit_code` is what a failure means."""

    subject: str
    ok: bool
    detail: str
    fix: str = ""
    exit_code: ExitCode = ExitCode.OK


async def check(settings: Settings) -> AsyncIterator[Answer]:
    """Ask, in the order a run would: databases, ClickHouse and its schema, then every source and lane."""
    for answer in await asyncio.to_thread(_enrichment, settings, time.time()):
        yield answer
    async for answer in _clickhouse(settings):
        yield answer
    for source in settings.all_sources():
        async for answer in _source(source, settings):
            yield answer


def _failed(subject: str, error: ShipperError) -> Answer:
    return Answer(subject, ok=False, detail=str(error), fix=error.hint, exit_code=error.exit_code)


def _wrong(subject: str, detail: str, fix: str) -> Answer:
    return Answer(subject, ok=False, detail=detail, fix=fix, exit_code=ExitCode.CONFIG)


def _enrichment(settings: Settings, now: float) -> list[Answer]:
    """Databases are read as a whole, which a run does not do; a large one takes some seconds."""
    subject = "enrichment"
    try:
        open_enricher(settings).close()
        tried = try_out(settings.geoip_databases)
    except ShipperError as error:
        return [_failed(subject, error)]
    if not tried:
        return [Answer(subject, ok=True, detail="no GeoIP database configured; the API's own details are used")]
    return [_database(f"{subject}, {info.path.name}", info, verdict, now) for info, verdict in tried]


def _database(subject: str, info: DatabaseInfo, verdict: Verdict, now: float) -> Answer:
    detail = f"{info.type} of {iso(info.built)[:10]}, {info.days_old(now)} days old; {verdict.value}"
    if verdict in (Verdict.DAMAGED, Verdict.CRASHED):
        return _wrong(subject, detail, "Download it again.")
    fix = f"It is older than {OLD_AFTER_DAYS} days: update it." if info.is_old(now) else ""
    return Answer(subject, ok=True, detail=detail, fix=fix)


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[Database]:
    database = await connect(settings, create=False)
    try:
        yield database
    finally:
        await database.close()


async def _clickhouse(settings: Settings) -> AsyncIterator[Answer]:
    try:
        async with _connected(settings) as database:
            ((version,),) = await database.query("SELECT version()")
            yield Answer("ClickHouse", ok=True, detail=f"{database.address}, version {version}")
            yield await _schema(database, settings)
    except NoDatabase as error:
        yield Answer("ClickHouse", ok=True, detail=f"{error}; the first run makes it")
    except ShipperError as error:
        yield _failed("ClickHouse", error)


async def _schema(database: Database, settings: Settings) -> Answer:
    subject = "schema"
    pending = await schema.pending(database)
    if pending and settings.auto_migrate:
        return Answer(subject, ok=True, detail=f"{len(pending)} migrations to apply; the next run does it")
    if pending:
        fix = "Run `shipper schema apply` with a user that may create tables."
        return _wrong(subject, f"{len(pending)} migrations are missing", fix)
    try:
        differences = await schema.diff(database)
    except DatabaseRefused:
        # A comparison makes the same tables in a scratch database, which a run's user need not be allowed to.
        return Answer(subject, ok=True, detail="all migrations applied; this user may not compare the tables")
    if differences:
        fix = "`shipper schema diff` lists them all; `shipper schema show` is how it should be."
        return _wrong(subject, differences[0], fix)
    return Answer(subject, ok=True, detail="as this version needs it")


async def _source(source: SourceSettings, settings: Settings) -> AsyncIterator[Answer]:
    subject = f"source {source.id}"
    try:
        async with AdminClient(source, settings, limiter=RateLimiter(settings.requests_per_second)) as client:
            newest = await probe(client, Lane.ORGANIZATION)
            detail = "the key may read the audit log" if newest.events else "the key works, but no event came back"
            fix = "" if newest.events else SWITCHED_ON
            yield Answer(subject, ok=True, detail=detail, fix=fix)
            if source.tenant_lane:
                yield await _tenant(subject, client)
    except ShipperError as error:
        yield _failed(subject, error)


async def _tenant(subject: str, client: AdminClient) -> Answer:
    subject = f"{subject}, tenant lane"
    try:
        await probe(client, Lane.TENANT)
    except (ApiRefused, ApiRejected) as error:
        return Answer(
            subject, ok=True, detail=f"refused, runs go on without it: {error}", fix="Or set tenant_lane: false."
        )
    return Answer(subject, ok=True, detail="the key may read it")
