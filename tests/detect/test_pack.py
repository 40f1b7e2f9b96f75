"""The whole pack: every rule is right on its own cases, quiet in a quiet month, and finds what is planted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from shipper.config import Settings
from shipper.detect.cases import NOON, insert, place, workspace_of
from shipper.detect.catalogue import catalogue
from shipper.detect.checks import Checker, read
from shipper.detect.engine import Pass
from shipper.detect.findings import Filter, Finding
from shipper.detect.findings import read as read_findings
from shipper.detect.rule import PACK, Rule, load_folders
from shipper.detection_settings import Severity
from shipper.load import schema
from shipper.load.clickhouse import connect
from shipper.load.retry import RetryingDatabase
from shipper.model import RawEvent, Row, RunID, Source, SourceID, Window, WorkspaceID
from shipper.normalize.events import normalize
from shipper.simulator import Organization
from tests.conftest import database_settings
from tests.detect.events import insert_rows

DAY = 86_400
RULES = load_folders([PACK])
DOCS = Path(__file__).parents[2] / "docs" / "detections.md"

# Findings of a quiet simulated month with 26 people and about 4,500 events, at most: none of them high.
BUDGET = {Severity.MEDIUM: 15, Severity.LOW: 40, Severity.INFO: 20}

# What the comparison of one backtest with five-minute passes covers. BACKTEST_HOURS=336 takes a quarter of an hour.
BACKTEST_HOURS = int(os.environ.get("BACKTEST_HOURS", "1"))

# The rule that has to find each story of the simulator.
EXPECTED = {
    "failed_sign_ins_then_success": "signin_brute_force_success",
    "sign_in_from_new_country": "signin_new_country",
    "ip_allowlist_switched_off": "defence_ip_allowlist_off",
    "key_made_by_leaver": "credential_key_before_removal",
    "owner_role_granted": "privilege_owner_granted",
}


def test_there_are_at_least_thirty_rules() -> None:
    assert len(RULES) >= 30


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_reads_as_it_should(rule: Rule) -> None:
    """Half-open window, no clock, parameters used and declared, tactics of the pinned table, runbook, cases."""
    assert read(rule) == []


async def test_every_rule_is_right_on_its_cases(database: RetryingDatabase) -> None:
    """In one window and in one for each moment, forwards and backwards, before and after: see `checks`."""
    checker = Checker(database)
    await checker.fill(RULES)
    assert {rule.id: found for rule in RULES if (found := await checker.run(rule))} == {}


def _settings(database: RetryingDatabase) -> Settings:
    return database_settings(database.address)


def _rows(organization: Organization, *, late: Random | None = None) -> list[Row]:
    """Its events as rows, received within a minute; with `late` a few only hours later."""
    source = Source(WorkspaceID("w"), SourceID("s"))
    rows = []
    for event in organization.events:
        delay = 30
        if late is not None:
            delay = late.choice((5, 20, 45, 60, 300)) if late.random() < 0.97 else late.randrange(20 * 3600)
        row = normalize(RawEvent(event.raw, event.lane, source, event.effective_at + delay))
        assert isinstance(row, Row)
        rows.append(row)
    return rows


async def _found(database: RetryingDatabase, windows: Sequence[Window]) -> list[Finding]:
    """What all rules find in these windows, one after the other, from an empty table of findings."""
    await database.command("TRUNCATE TABLE openai_audit_findings")
    one = Pass(database, _settings(database), RunID("test"), lambda: 0.0)
    for window in windows:
        outcomes = await one.look(RULES, window)
        assert [outcome.error for outcome in outcomes if outcome.error] == []
        await one.keep(outcomes)
    return await read_findings(database, Filter())


@pytest.fixture
async def embedded(embedded_url: str) -> RetryingDatabase:
    database = await connect(database_settings(embedded_url))
    await schema.apply(database)
    return database


async def test_a_quiet_month_is_quiet_and_the_planted_incidents_are_found(embedded: RetryingDatabase) -> None:
    """Without the planted events: nothing high, the rest within the budget. With them: each is found, nothing else."""
    organization = Organization.build(now=NOON, days=30)
    planted = {event_id: story for story, ids in organization.incidents.items() for event_id in ids}
    whole = [Window(NOON - 31 * DAY, NOON + DAY)]
    rows = _rows(organization)
    await insert_rows(embedded, [row for row in rows if row.event_id not in planted])
    quiet = await _found(embedded, whole)
    counts = Counter(one.severity for one in quiet)
    assert counts.keys() <= BUDGET.keys()
    assert all(counts[severity] <= most for severity, most in BUDGET.items()), counts

    await insert_rows(embedded, [row for row in rows if row.event_id in planted])
    found = await _found(embedded, whole)
    event_of = {row.id: row.event_id for row in rows}
    by_rule: dict[str, set[str]] = {}
    for one in found:
        by_rule.setdefault(one.rule, set()).update(event_of[proof.id] for proof in one.events)
    for story, rule in EXPECTED.items():
        assert by_rule.get(rule, set()) & set(organization.incidents[story]), story
    grave = [one for one in found if one.severity.rank >= Severity.HIGH.rank]
    assert {one.rule for one in grave} <= set(EXPECTED.values())
    assert all(planted.keys() & {event_of[proof.id] for proof in one.events} for one in grave)
    await embedded.close()


async def test_one_backtest_finds_what_five_minute_passes_find(server_url: str) -> None:
    """To the row: over the simulated organization, late events and all, and over the cases of every rule."""
    database = await connect(database_settings(server_url))
    await schema.apply(database)
    end = NOON + 3600
    start = end - BACKTEST_HOURS * 3600
    organization = Organization.build(now=end, days=30 + BACKTEST_HOURS // 24)
    await insert_rows(database, _rows(organization, late=Random(5)))
    placed = [
        one
        for rule in RULES
        for kind, cases in (("firing", rule.firing), ("silent", rule.silent))
        for number, case in enumerate(cases)
        for backwards in (False, True)
        for one in place(case, workspace_of(rule, f"{kind}-{backwards}", number), backwards=backwards)
    ]
    await insert(database, placed)
    whole = await _found(database, [Window(start, end)])
    edges = range(start, end + 1, 300)
    pieces = await _found(database, [Window(first, last) for first, last in pairwise(edges)])
    assert len(edges) == BACKTEST_HOURS * 12 + 1
    assert len({one.rule for one in whole}) >= 30
    assert [_content(one) for one in pieces] == [_content(one) for one in whole]
    await database.close()


def _content(finding: Finding) -> tuple[object, ...]:
    """All of it but for when it was found, and by which run with which window."""
    return (
        *(finding.id, finding.workspace_id, finding.rule, finding.entity, finding.bucket_start, finding.severity),
        *(finding.first_seen, finding.last_seen, finding.events, finding.event_types, finding.actors),
        *(finding.src_ips, finding.resources, finding.details, finding.tactics, finding.techniques, finding.query),
    )


def test_the_catalogue_in_the_docs_is_the_packs() -> None:
    """`REGENERATE_README=1` rewrites it."""
    text = (
        "# Detections\n\nThe rules of the pack, generated from `shipper/detect/rules/`. How to run them, change"
        f" them and write others: [README](../README.md#detections).\n\n{catalogue(RULES)}"
    )
    if os.environ.get("REGENERATE_README"):
        DOCS.parent.mkdir(exist_ok=True)
        DOCS.write_text(text, encoding="utf-8")
    assert DOCS.read_text(encoding="utf-8") == text
