"""How results look: tables on a terminal, the same words in plain text elsewhere, JSON on request."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import orjson

from shipper.errors import ShipperError
from shipper.model import Lane
from shipper.telemetry import LaneReport, RunReport

# The command that replays dead letters, as the run log has it.
DEAD_LETTERS = "dead-letters replay"

# Wide enough that a table written to a file or a pipe is never folded.
_FILE_WIDTH = 4096


def print_json(value: object) -> None:
    """One line of JSON."""
    print(orjson.dumps(value).decode())


def printable(text: str, *, keep: str = "") -> str:
    """The text as no terminal takes it for a command: what cannot be printed is escaped, but for what is in `keep`."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else ascii(one)[1:-1] for one in text)


def print_table(title: str, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table with its title, as wide as the terminal, or unbounded elsewhere; numbers to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    rows = [list(row) for row in rows]
    for position, header in enumerate(headers):
        numeric = bool(rows) and all(_is_number(row[position]) for row in rows)
        table.add_column(header, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    Console(width=None if sys.stdout.isatty() else _FILE_WIDTH, highlight=False, soft_wrap=False).print(table)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and value.isascii() and value.isdecimal())


def _cell(value: object) -> str:
    from rich.markup import escape

    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return escape(printable(text))


def print_report(report: RunReport, *, as_json: bool) -> None:
    """The run report: a row per source and lane, and the accounting in one sentence, whose sum closes."""
    if as_json:
        print_json(report.as_dict())
        return
    headers = ["source", "lane", "status", "received", "inserted", "already there", "dead-lettered", "pages", "retries"]
    headers += ["windows", "seconds", "events/s", "lag"]
    print_table("", headers, [_lane(lane, report.finished) for lane in report.lanes])
    received, inserted = report.total("received"), report.total("inserted")
    there, dead = report.total("already_there"), report.total("dead_lettered")
    print(f"received {received:,} = inserted {inserted:,} + already there {there:,} + dead-lettered {dead:,}", end="")
    unacknowledged = report.total("unacknowledged")
    print(f" + not acknowledged {unacknowledged:,} (run it again)" if unacknowledged else "")
    if report.command == DEAD_LETTERS:
        letters = "dead letter" if received == 1 else "dead letters"
        print(f"Of {received:,} {letters} the table has a row with the event's id for {report.resolved:,}.")
    elif report.lanes and not received and all(lane.status == "ok" for lane in report.lanes):
        if any(lane.lane is Lane.ARCHIVE for lane in report.lanes):
            print("The archive holds no events.")
        elif not report.total("windows"):
            print("Nothing to read: the ledger has all of it. --resweep reads it again.")


def _lane(lane: LaneReport, now: float) -> list[object]:
    lag = lane.lag(now)
    return [
        lane.source.source_id,
        lane.lane.value,
        lane.status,
        lane.received,
        lane.inserted,
        lane.already_there,
        lane.dead_lettered,
        lane.pages,
        lane.retries,
        f"{lane.windows_done}/{lane.windows}" if lane.windows else "-",
        lane.seconds,
        lane.events_per_second,
        human_seconds(lag),
    ]


def human_seconds(seconds: float | None) -> str:
    """`42s`, `3m`, `5h`, `2d`; `-` when unknown."""
    if seconds is None:
        return "-"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.1f}{unit}"
    return f"{seconds:.0f}s"


def print_hints(hints: Iterable[str]) -> None:
    """What a person should look at although nothing went wrong, on standard error."""
    for hint in hints:
        print(f"hint:  {hint}", file=sys.stderr)


def print_errors(errors: Iterable[ShipperError]) -> None:
    """Each error with its hint, on standard error."""
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint:  {error.hint}", file=sys.stderr)
