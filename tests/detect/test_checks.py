"""The checks can fail: a rule with one planted mistake is refused, and for that mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipper.detect.checks import Checker, read
from shipper.detect.rule import Rule, load
from shipper.load.clickhouse import Database
from tests.detect.rules import ONE_EVENT, SEVERAL_EVENTS, changed, written

READS_PAYLOADS = "exfil_external_storage_or_key"
VIEW = "openai_audit_received(from = {from:DateTime}, to = {to:DateTime})"
PLAIN = "openai_audit_logs\nWHERE receivedAt >= {from:DateTime} AND receivedAt < {to:DateTime} AND"


async def complaints(database: Database, rule: Rule) -> list[str]:
    checker = Checker(database)
    await checker.fill([rule])
    return [*read(rule), *await checker.run(rule)]


@pytest.mark.parametrize("name", [ONE_EVENT, SEVERAL_EVENTS])
async def test_a_rule_that_is_right_is_not_refused(database: Database, tmp_path: Path, name: str) -> None:
    """The rules that the mistakes below are planted in are right without them, with the window in either form."""
    assert await complaints(database, changed(tmp_path, name)) == []


async def test_the_window_may_be_written_out(database: Database, tmp_path: Path) -> None:
    """Without the view, with both bounds and every condition bound by AND, a rule is right too."""
    assert await complaints(database, changed(tmp_path, ONE_EVENT, sql=(f"{VIEW}\nWHERE", PLAIN))) == []


async def test_an_or_that_escapes_the_window_is_refused(database: Database, tmp_path: Path) -> None:
    """`A OR B AND window`: the window binds to B only, so that A is found again by every window."""
    rule = changed(
        tmp_path,
        ONE_EVENT,
        sql=(
            f"{VIEW}\nWHERE",
            "openai_audit_logs\nWHERE eventType = 'scim.disabled' OR\n" + PLAIN.partition("WHERE ")[2],
        ),
    )
    found = await complaints(database, rule)
    assert any("found by the window before it" in one for one in found)
    assert any("found by the window after it" in one for one in found)


@pytest.mark.parametrize(
    ("bounds", "found_by"),
    [
        ("receivedAt >= {from:DateTime} AND receivedAt <= {to:DateTime} AND", "found by the window before it"),
        ("receivedAt > {from:DateTime} AND receivedAt < {to:DateTime} AND", "expected the entities"),
        ("receivedAt > {from:DateTime} AND receivedAt <= {to:DateTime} AND", "expected the entities"),
    ],
)
async def test_a_window_that_is_not_half_open_is_refused(
    database: Database, tmp_path: Path, bounds: str, found_by: str
) -> None:
    """Closed, an event on the common edge of two windows is found twice; open, never. Reading and running say so."""
    rule = changed(tmp_path, ONE_EVENT, sql=(f"{VIEW}\nWHERE", f"openai_audit_logs\nWHERE {bounds}"))
    assert any("receivedAt is compared with something other" in one for one in read(rule))
    assert any(found_by in one for one in await complaints(database, rule))


@pytest.mark.parametrize(
    ("sql", "toml", "complaint"),
    [
        (
            ("", ""),
            (
                "[parameters.seconds]",
                '[parameters.unused]\ntype = "UInt32"\ndefault = 1\nhelp = "x"\n\n[parameters.seconds]',
            ),
            "the parameter unused is declared and not used",
        ),
        (("{failures:UInt32}", "{more:UInt32}"), ("", ""), "the parameter more is used and not declared"),
        (
            ("{failures:UInt32}", "{failures:String}"),
            ("", ""),
            "the parameter failures is declared as UInt32 and used as String",
        ),
        (("", ""), ("TA0006/T1110", "TA0040/T1110"), "TA0040/T1110: Brute Force serves TA0006"),
        (("", ""), ("TA0006/T1110", "TA9999/T1110"), "no tactic 'TA9999' in ATT&CK v17"),
        (("", ""), ("TA0006/T1110", "TA0006/T9999"), "no technique 'T9999' in the pinned table"),
        (("", ""), ('types = ["login.failed", ', "types = ["), "types and the SQL differ in login.failed"),
        (("WHERE hit", "WHERE hit AND eventTime < now()"), ("", ""), "the clock or chance has a say: now()"),
        (
            ("receivedAt >= {from:DateTime}", "receivedAt >= eventTime"),
            ("", ""),
            "receivedAt is compared with something other",
        ),
        (("to = {to:DateTime}, seconds", "to = {from:DateTime}, seconds"), ("", ""), "a view is called with something"),
        (("WHERE hit", "WHERE hit SETTINGS max_memory_usage = 0"), ("", ""), "SETTINGS may only say final = 0"),
        (("WHERE hit", "WHERE hit settings final = 0, readonly = 0"), ("", ""), "SETTINGS may only say final = 0"),
        (
            ("WHERE hit", "WHERE hit AND id IN (SELECT id FROM openai_audit_logs)"),
            ("", ""),
            "openai_audit_logs is read without receivedAt < {to:DateTime}",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_that_can_be_read_is_refused(
    tmp_path: Path, sql: tuple[str, str], toml: tuple[str, str], complaint: str
) -> None:
    """Unused, unknown and mistyped parameters, wrong tactics, event types that are not declared, the clock."""
    found = read(changed(tmp_path, SEVERAL_EVENTS, sql=sql, toml=toml))
    assert any(complaint in one for one in found), found


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        (("JSONExtractRaw(readable,", "JSONExtractRaw(rawLog,"), "JSONExtractRaw is given rawLog"),
        (("JSONExtractRaw(readable,", "JSONExtractRaw(\n  lasts.rawLog,"), "JSONExtractRaw is given rawLog"),
        (("JSONExtractRaw(readable, eventType, 'data', 'provider')", "toString(rawLog::JSON)"), "JSON is given rawLog"),
        (("if(isValidJSON(rawLog), rawLog,", "if(1, rawLog,"), "readable is something other than READABLE"),
        (("{2}', '\\\\\\\\ufffd'", "{3}', '\\\\\\\\ufffd'"), "readable is something other than READABLE"),
    ],
)
def test_a_payload_that_one_odd_byte_hides_is_refused(tmp_path: Path, sql: tuple[str, str], complaint: str) -> None:
    """A rule reads payloads from the repaired copy of rawLog, in the one form there is."""
    assert read(changed(tmp_path, READS_PAYLOADS)) == []
    found = read(changed(tmp_path, READS_PAYLOADS, sql=sql))
    assert any(complaint in one for one in found), found


def test_what_an_analyst_needs_must_be_there(tmp_path: Path) -> None:
    """A rule without cases, without words on where it errs, or with a runbook of one step is refused."""
    path = tmp_path / "bare_rule.toml"
    path.with_suffix(".sql").write_text(f"SELECT * FROM {VIEW}", encoding="utf-8")
    path.write_text(
        'title = "t"\ndescription = "d"\nseverity = "low"\nrisk = 1\nentity = "e"\nbucket = "1d"\n'
        "runbook = ['one']\nfalse_positives = []\nblind_spots = []\nfiring = []\nsilent = []\n",
        encoding="utf-8",
    )
    assert read(load(path)) == [
        "names no ATT&CK tactic and technique",
        "expected a runbook of 2 or 3 steps, got 1",
        "has no false positives",
        "has no blind spots",
        "has no firing",
        "has no silent",
    ]


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        # One of the match must be new: without it the next window finds all of it again.
        (("max(receivedAt >= {from:DateTime}) OVER before AS new", "1 AS new"), "found by the window"),
        (
            ("failed >= {failures:UInt32}", "failed > {failures:UInt32}"),
            "expected the entities eve@corp.example, got none",
        ),
        (("failed >= {failures:UInt32} AND", ""), "expected silence"),
        # What arrives later than the success is not seen.
        (("openai_audit_around", "openai_audit_received"), "a window for each moment finds another thing"),
        (("PRECEDING AND CURRENT ROW", "PRECEDING AND UNBOUNDED FOLLOWING"), "expected silence"),
    ],
)
async def test_a_mistake_that_shows_when_it_runs_is_refused(
    database: Database, tmp_path: Path, sql: tuple[str, str], complaint: str
) -> None:
    """Thresholds one off, conditions left out, a match that depends on how time is cut into windows."""
    rule = changed(tmp_path, SEVERAL_EVENTS, sql=sql)
    if "received" in sql[1]:
        rule = changed(
            tmp_path,
            SEVERAL_EVENTS,
            sql=("openai_audit_around(from = {from:DateTime}, to = {to:DateTime}, seconds = {seconds:UInt32})", VIEW),
        )
    found = await complaints(database, rule)
    assert any(complaint in one for one in found), found


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        (f"SELECT *, sourceID AS entity FROM {VIEW}", "expected the column detail String, got none"),
        (f"SELECT *, 1 AS entity, '' AS detail FROM {VIEW}", "expected the column entity String, got UInt8"),
        (
            f"SELECT *, '' AS entity, '' AS detail, 1 AS score FROM {VIEW}",
            "returns the column score, which nothing reads",
        ),
        ("SELECT 1 FROM nowhere", "does not run: "),
    ],
)
async def test_the_columns_must_be_those_that_are_read(
    database: Database, tmp_path: Path, sql: str, complaint: str
) -> None:
    """A column too few, of another type, or too many; SQL that does not run is told, not raised."""
    rule = written(tmp_path, "some_rule", sql)
    found = await complaints(database, rule)
    assert any(one.startswith(complaint) for one in found), found
