"""The command `detect`: run rules, look at them, try them on their cases."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from shipper.cli.context import metrics_of, settings, until_stopped
from shipper.durations import parse_moment
from shipper.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shipper.config import Settings
    from shipper.detect.passes import Report
    from shipper.detect.rule import Rule
    from shipper.metrics import Metrics
    from shipper.model import Window

# Rows of the table that a person reads at once.
_SHOWN = 40

# Asked to stop, a pass has so many seconds: a receiver may still answer, the lease is given up. Kubernetes waits 30.
_GRACE = 20.0


def detect(
    since: Annotated[
        str | None, typer.Option("--from", help="Backtest: start of receivedAt, as 14d or a date.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Backtest: its end, exclusive. Default: now.")] = None,
    rule: Annotated[list[str] | None, typer.Option(help="Only this rule, also when it is off. Repeat it.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the rules and leave.")] = False,
    explain: Annotated[str | None, typer.Option(metavar="ID", help="Print all about a rule and leave.")] = None,
    try_: Annotated[bool, typer.Option("--test", help="Run the rules on their own cases and leave.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing and send nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Run the detection rules over what was received since the last time.

    Each rule goes on where it finished last (the first time: `detect_lookback`), and catches up after an outage
    in windows of `detect_step`. Findings go into openai_audit_findings, and to the alert routes. A rule that
    fails stops no other, and looks at the same window again the next time.

    With --from and --to it looks at a stretch of the past again. That sends no alerts, and adds nothing twice.
    """
    from shipper.cli.render import printable
    from shipper.detect.catalogue import explain as explained
    from shipper.detect.rule import configured

    loaded = settings()
    if explain is not None:
        [chosen] = configured(loaded, [explain])
        print(printable(explained(chosen), keep="\n"))
        return 0
    rules = configured(loaded, rule or ())
    if list_:
        return _list(loaded, rules, as_json)
    if try_:
        return asyncio.run(_try(rules))
    if until is not None and since is None:
        raise UsageError("--to needs --from", hint="For example: shipper detect --from 14d --to 7d")
    if not rules:
        raise UsageError("every rule is switched off", hint="`rules` in the configuration file says which.")
    window = _window(since, until) if since is not None else None

    async def work(stop: asyncio.Event) -> int:
        if window is None and not dry_run:
            # How far every rule has come is not for a pass of some of them to say.
            metrics = None if rule else metrics_of(loaded)
            return (await live(loaded, rules, stop, metrics, as_json=as_json)).exit_code
        from shipper.detect.passes import open_detections

        async with open_detections(loaded, rules, stop, _progress, dry=dry_run) as detections:
            report = await (detections.dry() if window is None else detections.backtest(window, dry=dry_run))
        _print(report, loaded, as_json=as_json)
        return report.exit_code

    return until_stopped(work)


async def live(
    loaded: Settings, rules: Sequence[Rule], stop: asyncio.Event, metrics: Metrics | None, *, as_json: bool
) -> Report:
    """One live pass of the detections: open the database, look, send, close; then print what came of it.

    Raises Interrupted soon after `stop` is set, whatever it waits for.
    """
    from shipper.detect.passes import open_detections
    from shipper.stopping import until_stopped as bounded

    async def look() -> Report:
        async with open_detections(loaded, rules, stop, _progress) as detections:
            return await detections.live()

    work = bounded(look(), stop, grace=_GRACE)
    report = await (work if metrics is None else metrics.detecting(work))
    _print(report, loaded, as_json=as_json)
    return report


def _window(since: str, until: str | None) -> Window:
    from shipper.model import Window

    now = int(time.time())
    start, end = parse_moment(since, now), parse_moment(until, now) if until else now
    if start >= end:
        raise UsageError("nothing lies between --from and --to", hint="--from must be before --to.")
    return Window(start, end)


def _progress(done: int, of: int) -> None:
    if of > 1 and sys.stderr.isatty():
        print(f"\rwindow {done + 1} of {of}", end="" if done + 1 < of else "\n", file=sys.stderr, flush=True)


def _print(report: Report, loaded: Settings, *, as_json: bool) -> None:
    from shipper.cli.render import print_errors, print_json

    if as_json:
        print_json(report.as_dict())
    else:
        _print_text(report, loaded)
    print_errors(report.errors)


def _print_text(report: Report, loaded: Settings) -> None:
    from shipper.cli.findings import table
    from shipper.model import iso

    found = sorted(report.findings.values(), key=lambda one: (-one.severity.rank, -one.last_seen, one.rule, one.entity))
    if found:
        table(found[:_SHOWN])
    if len(found) > _SHOWN:
        print(f"… and {len(found) - _SHOWN:,} more: `shipper findings list`")
    seen = f", received before {iso(report.until)}" if report.until else ""
    findings = f"{len(found):,} findings" if len(found) != 1 else "1 finding"
    print(f"{findings} by {report.rules:,} rules{seen}.")
    if report.waits:
        print(f"Waiting: {report.waits}.")
    if report.suppressed:
        print(f"{report.suppressed:,} not sent because of a suppression.")
    alerts = report.alerts
    if alerts.routes:
        print(f"Alerts: {alerts.delivered:,} delivered, {alerts.refused:,} refused, {alerts.pending:,} pending.")
    elif found and not loaded.alert_routes:
        print("No alert route is configured: `shipper findings list` shows what was found.")
    for one in loaded.suppressions:
        if not one.holds(one.rule, one.entity, time.time()) and one.until.isoformat() < iso(int(time.time()))[:10]:
            print(f"hint:  the suppression of {one.rule} for {one.entity!r} ended on {one.until}", file=sys.stderr)


def _list(loaded: Settings, rules: Sequence[Rule], as_json: bool) -> int:
    from shipper.cli.render import print_json, print_table
    from shipper.detect.rule import PACK, load_folders

    every = load_folders((PACK, *loaded.rule_folders))
    on = {rule.id: rule for rule in rules}
    shown = [(on.get(rule.id, rule), rule.id in on) for rule in every]
    if as_json:
        print_json(
            [
                {
                    "id": rule.id,
                    "title": rule.title,
                    "severity": rule.severity,
                    "risk": rule.risk,
                    "attack": rule.attack,
                    "enabled": enabled,
                }
                for rule, enabled in shown
            ]
        )
        return 0
    print_table(
        "",
        ["rule", "severity", "risk", "title", "on"],
        [[rule.id, str(rule.severity), rule.risk, rule.title, enabled] for rule, enabled in shown],
    )
    print(f"{len(on):,} of {len(every):,} rules are on. `shipper detect --explain ID` says all about one.")
    return 0


async def _try(rules: Sequence[Rule]) -> int:
    """Each rule on its own cases, in an embedded database that is thrown away."""
    import tempfile

    from shipper.cli.render import printable
    from shipper.config import Settings
    from shipper.detect.checks import Checker, read
    from shipper.load import schema
    from shipper.load.clickhouse import connect

    failed = 0
    with tempfile.TemporaryDirectory(prefix="shipper-rules-") as folder:
        database = await connect(Settings(clickhouse_url=f"chdb:{folder}"))
        try:
            await schema.apply(database)
            checker = Checker(database)
            await checker.fill(rules)
            for rule in rules:
                complaints = [*read(rule), *await checker.run(rule)]
                failed += bool(complaints)
                cases = len(rule.firing) + len(rule.silent)
                print(f"{'FAIL' if complaints else 'ok  '}  {rule.id} ({cases} cases)")
                for complaint in complaints:
                    print(f"      {printable(complaint)}")
        finally:
            await database.close()
    print(f"{len(rules) - failed:,} of {len(rules):,} rules are right.")
    return ExitCode.CONFIG if failed else ExitCode.OK
