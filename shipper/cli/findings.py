"""The commands about findings: findings list, show and ack."""

from __future__ import annotations

import asyncio
import getpass
import time
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from shipper.cli.context import settings
from shipper.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from shipper.config import Settings
    from shipper.detect.findings import Finding
    from shipper.load.retry import RetryingDatabase

_T = TypeVar("_T")

# Of an id, in a table for people: enough to tell it from all others, and what `show` takes.
_SHORT = 10
# Of what a finding lists, in a table for people.
_WIDTH = 48

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def list_(
    rule: Annotated[str, typer.Option(help="Only of this rule.")] = "",
    severity: Annotated[str, typer.Option(help="At least so grave: info, low, medium, high or critical.")] = "info",
    since: Annotated[str, typer.Option(help="Found or added to since then: 30d, or a date.")] = "30d",
    every: Annotated[bool, typer.Option("--all", help="Also those that were acknowledged.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the last seen first.")] = 50,
    as_json: Json = False,
) -> int:
    """List what the detections found.

    An acknowledged finding is listed again when it is added to. With --json the ids are whole.
    """
    from shipper.cli.render import print_json
    from shipper.detect.findings import Filter, read
    from shipper.detection_settings import Severity
    from shipper.durations import parse_moment

    if severity not in set(Severity):
        raise UsageError(f"--severity: expected {', '.join(Severity)}, got {severity!r}")
    chosen = Filter(
        rule=rule,
        severity=Severity(severity),
        since=parse_moment(since, int(time.time())) * 1000,
        acknowledged=every,
    )
    found = _with_database(settings(), lambda database: read(database, chosen, limit + 1))
    if as_json:
        print_json([as_dict(one) for one in found[:limit]])
        return 0
    if not found:
        print("No findings. `shipper detect` looks for them; `shipper detect --list` says for what.")
        return 0
    table(found[:limit])
    more = ", more are there: raise --limit" if len(found) > limit else ""
    shown = min(len(found), limit)
    print(f"{shown:,} finding{'' if shown == 1 else 's'}{more}")
    return 0


def show(
    finding: Annotated[str, typer.Argument(metavar="ID", help="The id, or its first 6 digits or more.")],
    as_json: Json = False,
) -> int:
    """Print all about a finding.

    Who, what, from where, what to do, and the query that shows its events.
    """
    from shipper.cli.render import print_json, printable
    from shipper.detect.catalogue import told
    from shipper.detect.rule import PACK, load_folders

    loaded = settings()
    one = _only(loaded, finding)
    if as_json:
        print_json(as_dict(one))
        return 0
    rules = {rule.id: rule for rule in load_folders((PACK, *loaded.rule_folders))}
    for line in told(one, rules.get(one.rule)):
        print(printable(line))
    return 0


def ack(
    findings: Annotated[list[str], typer.Argument(metavar="ID…", help="Ids, or their first 6 digits or more.")],
    note: Annotated[str, typer.Option(help="What came of it.")] = "",
    by: Annotated[str, typer.Option(help="Who looked at it. Default: the user of this process.")] = "",
) -> int:
    """Note that somebody has looked at findings.

    They are no longer listed until they are added to, and then sent again. Routes that know an end (PagerDuty,
    Alertmanager) are told of it by the next `shipper detect`.
    """
    try:
        f"{note}{by}".encode()
    except UnicodeEncodeError:
        message = "--note and --by have to be valid UTF-8"
        raise UsageError(message, hint="Is the terminal set to another character set?") from None
    loaded = settings()
    ids = [_only(loaded, one).id for one in findings]

    async def work(database: RetryingDatabase) -> None:
        from shipper.detect.alerts.outbox import queue_resolve
        from shipper.detect.findings import acknowledge

        now = time.time()
        await acknowledge(database, ids, now=now, by=by or getpass.getuser(), note=note)
        await queue_resolve(database, ids, loaded.alert_routes, now)

    _with_database(loaded, work)
    print(f"{len(ids):,} finding{'' if len(ids) == 1 else 's'} acknowledged")
    return 0


def table(findings: Sequence[Finding], title: str = "") -> None:
    """The findings for a person."""
    from shipper.cli.render import print_table
    from shipper.model import iso

    rows: list[list[object]] = [
        [
            str(one.severity),
            iso(one.last_seen)[:16].replace("T", " "),
            one.title,
            _short(one.entity),
            _short(", ".join(one.actors)),
            one.count,
            one.id[:_SHORT],
        ]
        for one in findings
    ]
    print_table(title, ["severity", "last seen", "what", "about", "who", "events", "id"], rows)


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def as_dict(one: Finding) -> dict[str, Any]:
    """A finding as plain data; times as text."""
    from dataclasses import asdict

    from shipper.model import iso

    values = asdict(one)
    for name in ("bucket_start", "first_seen", "last_seen"):
        values[name] = iso(values[name])
    for name in ("first_detected_at", "last_detected_at", "acknowledged_at"):
        values[name] = iso(values[name] // 1000) if values[name] else None
    values["events"] = [
        {"source_id": event.source_id, "event_time": iso(event.event_time), "id": event.id} for event in one.events
    ]
    return values


def _only(loaded: Settings, digits: str) -> Finding:
    from shipper.detect.findings import Filter, read

    if len(digits) < 6:
        raise UsageError(f"expected an id or its first 6 digits, got {digits!r}")
    found = _with_database(loaded, lambda database: read(database, Filter(ids=(digits,)), 2))
    if len(found) != 1:
        what = "two findings begin" if found else "no finding begins"
        raise UsageError(f"{what} with {digits!r}", hint="`shipper findings list --all --json` shows whole ids.")
    return found[0]


def _with_database(loaded: Settings, work: Callable[[RetryingDatabase], Awaitable[_T]]) -> _T:
    from shipper.load import schema
    from shipper.load.clickhouse import connect

    async def call() -> _T:
        database = await connect(loaded, create=False)
        try:
            await schema.require(database)
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(call())
