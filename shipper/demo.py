"""`shipper demo`: the real pipeline against a simulated organization, into an embedded ClickHouse in one folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from shipper.config import Settings
from shipper.detect.findings import Filter, Finding, read
from shipper.detect.passes import Detections
from shipper.detect.rule import configured
from shipper.fetch.windows import DAY
from shipper.load.ledger import Ledger
from shipper.model import Lane, Window
from shipper.run import Run, open_run
from shipper.simulator import Organization, Simulator
from shipper.telemetry import RunReport

_DAYS = 30

# The categories that happen most, so that the table fits a terminal; the others together.
_BY_DAY = """
WITH tags['category'] AS category
SELECT toDate(eventTime, 'UTC') AS day, count() AS events,
       countIf(category = 'authentication') AS `sign-ins`, countIf(category = 'api_key') AS keys,
       countIf(category = 'user') AS users, countIf(category = 'role') AS roles,
       countIf(category = 'project') AS projects, countIf(category = 'network') AS network,
       events - `sign-ins` - keys - users - roles - projects - network AS other
FROM openai_audit_logs FINAL GROUP BY day ORDER BY day
"""
_TOP_ACTORS = """
SELECT coalesce(nullIf(actorUserEmail, ''), nullIf(serviceAccountID, ''), nullIf(actorUserID, ''), '(nobody)') AS actor,
       count() AS events, uniqExactIf(srcIP, srcIP != '') AS addresses, max(eventTime) AS last_seen
FROM openai_audit_logs FINAL GROUP BY actor ORDER BY events DESC, actor LIMIT 8
"""
_COUNTRIES = """
SELECT srcASCountryCode AS country, count() AS events, uniqExact(actorUserEmail) AS people
FROM openai_audit_logs FINAL WHERE country != '' GROUP BY country ORDER BY events DESC, country LIMIT 8
"""

_RECEIVED = """
SELECT toUnixTimestamp(min(receivedAt)), toUnixTimestamp(max(receivedAt)), count() FROM openai_audit_logs
"""

# What the demo suggests to try: a title and its SQL.
QUERIES = (
    (
        "Many failed sign-ins, then one that worked, from one address",
        (
            "SELECT srcIP, countIf(eventType = 'login.failed') AS failed, "
            "countIf(eventType = 'login.succeeded') AS worked, "
            "any(srcASCountryCode) AS country FROM openai_audit_logs GROUP BY srcIP HAVING failed > 5 AND worked > 0"
        ),
    ),
    (
        "Who switched the IP allowlist off, and when",
        (
            "SELECT eventTime, actorUserEmail, srcIP, resources FROM openai_audit_logs "
            "WHERE eventType = 'ip_allowlist.config.deactivated'"
        ),
    ),
    (
        "Changes by person and kind over the last week",
        (
            "SELECT actorUserEmail, tags['category'] AS category, count() AS changes FROM openai_audit_logs "
            "WHERE NOT readOnly AND eventTime > now() - INTERVAL 7 DAY GROUP BY 1, 2 ORDER BY changes DESC LIMIT 10"
        ),
    ),
)


class _DemoSettings(Settings):
    """Nothing of the environment counts: a proxy, a key or a schema policy of the real thing has no place here."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class Summary:
    """What the table holds after the demo, and the run that put it there. A table is its headers and its rows."""

    run: Run
    first_time: bool
    by_day: tuple[list[str], list[tuple[Any, ...]]]
    top_actors: tuple[list[str], list[tuple[Any, ...]]]
    countries: tuple[list[str], list[tuple[Any, ...]]]
    findings: list[Finding]


async def demo(
    folder: Path, stop: asyncio.Event, watching: Callable[[RunReport], AbstractAsyncContextManager[None]]
) -> Summary:
    """Ship 30 days of the simulated organization into `folder`, under the display that `watching` gives.

    The organization is the same every time: its month ends where the ledger of the first demo ends. The second time,
    all of it is read again and nothing is added.
    """
    settings = _DemoSettings(
        clickhouse_url=f"chdb:{folder}", source_id="demo", workspace="demo", requests_per_second=100.0
    )
    async with AsyncExitStack() as stack:
        run = await stack.enter_async_context(open_run(settings, "demo", stop))
        configured = settings.all_sources()[0]
        covered = await Ledger(run.database, configured.source).covered(Lane.ORGANIZATION)
        now = covered[-1].end if covered else int(time.time())
        simulator = await stack.enter_async_context(Simulator(Organization.build(now=now, days=_DAYS)))
        source = configured.model_copy(
            update={"base_url": simulator.base_url, "admin_key": SecretStr(simulator.admin_key), "admin_key_file": None}
        )
        async with watching(run.report):
            await run.backfill(Window(now - _DAYS * DAY, now), [source], resweep=bool(covered))
        return Summary(
            run,
            not covered,
            await run.database.query_table(_BY_DAY),
            await run.database.query_table(_TOP_ACTORS),
            await run.database.query_table(_COUNTRIES),
            await _detect(run),
        )


async def _detect(run: Run) -> list[Finding]:
    """Run every rule over all that the demo has received, and give the findings, the gravest and newest first."""
    [(first, last, rows)] = await run.database.query(_RECEIVED)
    if not rows:
        return []
    detections = Detections(run.settings, run.database, configured(run.settings), run.stop)
    report = await detections.backtest(Window(first, last + 1), dry=False)
    run.errors += report.errors
    return sorted(await read(run.database, Filter()), key=lambda one: (-one.severity.rank, -one.last_seen, one.id))
