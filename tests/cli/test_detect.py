"""`shipper detect` and `shipper findings`, as a person meets them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shipper.cli import detect
from shipper.config import Settings
from shipper.detect.rule import PACK
from shipper.errors import ExitCode, Interrupted
from tests.cli.conftest import Shipper

DATA = {"SHIPPER_CLICKHOUSE_URL": "chdb:data"}
RULE = "defence_scim_disabled"
# All that was received in this test: the second that goes on is no part of a window that ends now.
ALL = ("--from", "1h", "--to", f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}")


def _event(number: int, event_type: str, at: int) -> str:
    user = {"id": "user-olga", "email": "olga@corp.example"}
    session = {"type": "session", "session": {"user": user, "ip_address": "192.0.2.1"}}
    body = {"id": f"audit_log-{number}", "type": event_type, "effective_at": at, "actor": session}
    return json.dumps({**body, event_type: {"id": "org-1"}})


@pytest.fixture
def shipped(shipper: Shipper, tmp_path: Path) -> Shipper:
    """An embedded database that has two events on which one rule fires, of two days, and one on which it does not."""
    events = [
        (1, "scim.disabled", 1_773_230_400),
        (2, "scim.disabled", 1_773_130_400),
        (3, "scim.enabled", 1_773_230_500),
    ]
    (tmp_path / "events.ndjson").write_text("\n".join(_event(*event) for event in events) + "\n")
    assert shipper("replay", "events.ndjson", **DATA).code == 0
    return shipper


def test_what_was_received_is_looked_at_once(shipped: Shipper) -> None:
    """Once the second in which it came is over, a pass finds it, and the next one has nothing left to look at.

    Two days are two findings.
    """
    while not (one := json.loads(shipped("detect", "--json", **DATA).out))["findings"]:
        assert one["until"] <= f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert len(one["findings"]) == 2
    assert json.loads(shipped("detect", "--json", **DATA).out)["findings"] == []
    first = shipped("detect", "--json", *ALL, **DATA)
    assert (first.code, len(json.loads(first.out)["findings"])) == (0, 2)
    listed = shipped("findings", "list", **DATA)
    assert "SCIM provisioning switched off" in listed.out
    assert "2 findings" in listed.out
    found = json.loads(shipped("findings", "list", "--json", **DATA).out)
    assert [one["last_seen"] for one in found] == ["2026-03-11T12:00:00Z", "2026-03-10T08:13:20Z"]
    assert {one["id"] for one in found} == set(json.loads(first.out)["findings"])
    assert found[0]["events"][0]["event_time"] == "2026-03-11T12:00:00Z"


def test_a_finding_says_who_what_and_what_to_do(shipped: Shipper) -> None:
    """And its query, as it is printed, shows its events."""
    [one, _] = json.loads(shipped("detect", "--json", *ALL, **DATA).out)["findings"]
    told = shipped("findings", "show", one[:10], **DATA)
    assert told.code == 0
    for text in ("SCIM provisioning switched off", "olga@corp.example", "192.0.2.1", "What to do", "  1. ", "TA0005"):
        assert text in told.out
    sql = told.out.partition("Its events\n")[2]
    [row] = json.loads(shipped("query", "--json", sql, **DATA).out)
    assert (row["eventType"], row["actorUserEmail"]) == ("scim.disabled", "olga@corp.example")
    assert json.loads(shipped("findings", "show", one, "--json", **DATA).out)["id"] == one


def test_nothing_of_a_finding_is_a_command_to_a_terminal(shipper: Shipper, tmp_path: Path) -> None:
    """An address with an escape sequence and a line of its own is shown as what it is, in the table and in full."""
    body = json.loads(_event(1, "scim.disabled", 1_773_230_400))
    body["actor"]["session"]["user"]["email"] = "\x1b[2Jolga@corp.example\nAbout:     nobody"
    (tmp_path / "events.ndjson").write_text(json.dumps(body) + "\n")
    assert shipper("replay", "events.ndjson", **DATA).code == 0
    found = shipper("detect", *ALL, **DATA)
    [one] = json.loads(shipper("findings", "list", "--json", **DATA).out)
    told = shipper("findings", "show", one["id"], **DATA)
    for shown in (found.out, told.out):
        assert "\x1b" not in shown
        assert "\nAbout:     nobody" not in shown
    assert "\\x1b[2Jolga@corp.example\\nAbout:     nobody" in told.out


def test_an_acknowledged_finding_is_no_longer_listed(shipped: Shipper) -> None:
    """It is with --all, and says who looked at it."""
    [one, other] = json.loads(shipped("detect", "--json", *ALL, **DATA).out)["findings"]
    acked = shipped("findings", "ack", one[:8], "--by", "ada", "--note", "planned", **DATA)
    assert (acked.code, acked.out) == (0, "1 finding acknowledged\n")
    assert [found["id"] for found in json.loads(shipped("findings", "list", "--json", **DATA).out)] == [other]
    assert len(json.loads(shipped("findings", "list", "--json", "--all", **DATA).out)) == 2
    assert re.search(r"Seen by: +ada, .*: planned", shipped("findings", "show", one, **DATA).out)


def test_without_findings_it_says_how_there_would_be_some(shipped: Shipper) -> None:
    assert shipped("findings", "list", **DATA).out.startswith("No findings. `shipper detect` looks for them")
    assert shipped("detect", "--from", "2020-01-01", "--to", "2020-01-02", **DATA).out.startswith("0 findings by ")


def test_without_a_database_it_says_what_makes_one(shipper: Shipper) -> None:
    result = shipper("detect", **DATA)
    assert (result.code, "`shipper run` makes it" in result.err) == (ExitCode.CONFIG, True)
    assert shipper("findings", "list", **DATA).code == ExitCode.CONFIG


def test_rules_are_listed_and_explained(shipper: Shipper) -> None:
    """No database is needed for it."""
    listed = shipper("detect", "--list")
    assert (listed.code, RULE in listed.out) == (0, True)
    assert {rule["id"]: rule["enabled"] for rule in json.loads(shipper("detect", "--list", "--json").out)}[RULE]
    told = shipper("detect", "--explain", RULE)
    assert told.code == 0
    for text in ("SCIM", "Runbook", "False positives", "Blind spots", "FROM openai_audit_received", "(TA0003, T1098)"):
        assert text in told.out
    parameter = shipper("detect", "--explain", "signin_brute_force_success").out
    assert "failures UInt32 = 8: Failures from one address" in parameter


def test_what_the_configuration_changes_is_told(shipper: Shipper, tmp_path: Path) -> None:
    """A parameter, a severity, a rule that is off; one that is asked for by name runs all the same."""
    (tmp_path / "shipper.yaml").write_text(
        "rules:\n  signin_brute_force_success:\n    severity: low\n    parameters: {failures: 20}\n"
        f"  {RULE}: {{enabled: false}}\n"
    )
    told = shipper("--config", "shipper.yaml", "detect", "--explain", "signin_brute_force_success").out
    assert "low, risk" in told
    assert "failures UInt32 = 20 (default 8)" in told
    rules = json.loads(shipper("--config", "shipper.yaml", "detect", "--list", "--json").out)
    assert [rule["id"] for rule in rules if not rule["enabled"]] == [RULE]
    assert shipper("--config", "shipper.yaml", "detect", "--test", "--rule", RULE).code == 0


@pytest.mark.parametrize(
    ("yaml", "message", "hint"),
    [
        (
            "rules: {signin_brute_force: {}}",
            "there is no rule 'signin_brute_force'",
            "Did you mean 'signin_brute_force_success'?",
        ),
        (
            "rules: {signin_brute_force_success: {parameters: {failure: 3}}}",
            "rules.signin_brute_force_success: no parameter 'failure'",
            "Did you mean 'failures'?",
        ),
        (
            "rules: {signin_brute_force_success: {parameters: {failures: many}}}",
            "rules.signin_brute_force_success.parameters.failures: expected UInt32, got str",
            "",
        ),
        ("rule_parameters: {own_domain: []}", "rule_parameters: no rule has a parameter 'own_domain'", "'own_domains'"),
        (
            "suppressions: [{rule: nothing_like_it, entity: x, until: 2030-01-01, reason: y}]",
            "there is no rule 'nothing_like_it'",
            "`shipper detect --list` shows the rules.",
        ),
        (
            "alert_routes: [{name: out, type: stdout, rules: [nothing_like_it]}]",
            "alert_routes: out: there is no rule 'nothing_like_it'",
            "",
        ),
        ("rule_folders: [nowhere]", "rule_folders: nowhere is not a folder", ""),
    ],
)
def test_a_mistake_in_the_configuration_is_told(
    shipper: Shipper, tmp_path: Path, yaml: str, message: str, hint: str
) -> None:
    """Unknown rules and parameters, values of another type: 78, and what was meant."""
    (tmp_path / "shipper.yaml").write_text(yaml)
    result = shipper("--config", "shipper.yaml", "detect", "--list")
    assert result.code == ExitCode.CONFIG
    assert message in result.err
    assert hint in result.err


def test_a_value_of_a_case_that_fits_no_column_is_told(shipper: Shipper, tmp_path: Path) -> None:
    """Which case, which column and what was expected; it is the author's mistake and no bug."""
    for suffix in (".sql", ".toml"):
        text = (PACK / f"{RULE}{suffix}").read_text()
        one = text.replace("events = [{ ", 'events = [{ columns = { srcASNumber = "16509" }, ', 1)
        assert suffix == ".sql" or one != text
        (tmp_path / f"my_scim{suffix}").write_text(one.replace(RULE, "my_scim"))
    (tmp_path / "shipper.yaml").write_text(f"rule_folders: [{tmp_path}]\n")
    result = shipper("--config", "shipper.yaml", "detect", "--test", "--rule", "my_scim")
    assert result.code == ExitCode.CONFIG
    assert "my_scim/firing/0: a value does not fit the column srcASNumber: " in result.err
    assert "`shipper schema show`" in result.err


async def test_a_pass_that_waits_for_a_server_that_is_silent_ends_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it waits for, after a grace: between two rules is not the only place where it can be stopped."""
    begun = asyncio.Event()

    @asynccontextmanager
    async def silent(*_: object) -> AsyncIterator[None]:
        begun.set()
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr("shipper.detect.passes.open_detections", silent)
    monkeypatch.setattr(detect, "_GRACE", 0.0)
    stop = asyncio.Event()
    work = asyncio.create_task(detect.live(Settings(), (), stop, None, as_json=True))
    await begun.wait()
    stop.set()
    with pytest.raises(Interrupted):
        await work


def test_a_note_in_another_character_set_is_refused(shipped: Shipper) -> None:
    result = shipped("findings", "ack", "0" * 8, "--note", b"caf\xe9".decode(errors="surrogateescape"), **DATA)
    assert (result.code, "have to be valid UTF-8" in result.err) == (ExitCode.USAGE, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "1d"), "--to needs --from"),
        (("--from", "1d", "--to", "2d"), "nothing lies between --from and --to"),
        (("--from", "yesterday"), "expected a date, a time or a duration"),
        (("--rule", "no_such_rule"), "there is no rule 'no_such_rule'"),
        (("--explain", "no_such_rule"), "there is no rule 'no_such_rule'"),
    ],
)
def test_a_mistake_on_the_command_line_is_told(shipped: Shipper, arguments: tuple[str, ...], message: str) -> None:
    result = shipped("detect", *arguments, **DATA)
    assert result.code in {ExitCode.USAGE, ExitCode.CONFIG}
    assert message in result.err


def test_ids_that_name_no_finding_or_two_are_refused(shipped: Shipper) -> None:
    for digits, message in (("abc", "its first 6 digits"), ("0" * 8, "no finding begins with")):
        result = shipped("findings", "show", digits, **DATA)
        assert (result.code, message in result.err) == (ExitCode.USAGE, True)


def test_a_rule_of_ones_own(shipped: Shipper, tmp_path: Path) -> None:
    """A pair of files in a folder is found, tried on its cases, and run; what is wrong with a broken one is told."""
    folder = tmp_path / "rules"
    folder.mkdir()
    pack = Path(__file__).parents[2] / "shipper" / "detect" / "rules"
    swapped = {"scim.disabled": "scim.enabled", "scim.enabled": "scim.disabled"}
    toml = re.sub(r"scim\.(?:dis|en)abled", lambda match: swapped[match[0]], (pack / f"{RULE}.toml").read_text())
    (folder / "scim_switched_on.toml").write_text(toml)
    (folder / "scim_switched_on.sql").write_text(
        "SELECT *, actorUserEmail AS entity, '' AS detail\n"
        "FROM openai_audit_received(from = {from:DateTime}, to = {to:DateTime})\nWHERE eventType = 'scim.enabled'\n"
    )
    own = {**DATA, "SHIPPER_RULE_FOLDERS": "rules"}
    found = shipped("detect", *ALL, "--rule", "scim_switched_on", "--json", **own)
    assert (found.code, len(json.loads(found.out)["findings"])) == (0, 1)
    (folder / "scim_switched_on.sql").write_text("SELECT nonsense")
    tried = shipped("detect", "--test", "--rule", "scim_switched_on", **own)
    assert (tried.code, "FAIL  scim_switched_on" in tried.out) == (ExitCode.CONFIG, True)
    broken = shipped("detect", *ALL, "--rule", "scim_switched_on", **own)
    assert (broken.code, "0 findings by 1 rules" in broken.out) == (ExitCode.UNAVAILABLE, True)
    assert "nonsense" in broken.err
