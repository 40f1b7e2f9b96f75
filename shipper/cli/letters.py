"""The commands about dead letters: dead-letters list, show and replay."""

from __future__ import annotations

import asyncio
import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipper.cli.context import settings
from shipper.errors import UsageError

if TYPE_CHECKING:
    from shipper.load.dead_letters import Entry
    from shipper.run import Run

# Of an id, in a table for people: enough to tell it from all others, and what `show` takes.
_SHORT = 16

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SourceOption = Annotated[str, typer.Option("--source", help="Only of the source with this id.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Only with this reason, such as no-event-time.")]


def dead_letters_list(
    source: SourceOption = "",
    reason: ReasonOption = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 50,
    every: Annotated[bool, typer.Option("--all", help="Also those whose event was found in the table.")] = False,
    as_json: Json = False,
) -> int:
    """List what could not be a row.

    With --json the ids are whole; in the table their first 16 digits are enough for `show` and `replay`.
    """
    from shipper.cli.render import print_json, print_table
    from shipper.dead_letters import list_letters
    from shipper.load.dead_letters import Filter
    from shipper.model import iso

    chosen = Filter(source_id=source, reason=reason, resolved=every)
    listing = asyncio.run(list_letters(settings(), chosen, limit))
    if as_json:
        print_json([_as_dict(entry) for entry in listing.entries])
        return 0
    if not listing.total:
        print("No dead letters.")
        return 0
    headers = ["source", "lane", "reason", "received", "bytes", "id", "detail", *(["in the table"] if every else [])]
    rows: list[list[object]] = []
    for one in listing.entries:
        row: list[object] = [one.source.source_id, one.lane.value, one.reason, iso(one.received_at), one.size]
        row += [one.id[:_SHORT], one.detail]
        rows.append([*row, iso(one.resolved_at) if one.resolved_at else "-"] if every else row)
    print_table("", headers, rows)
    shown = len(listing.entries)
    letters = "dead letter" if listing.total == 1 else "dead letters"
    print(f"{listing.total:,} {letters}" + (f", the newest {shown:,} shown" if shown < listing.total else ""))
    return 0


def dead_letters_show(
    letter: Annotated[str, typer.Argument(metavar="ID", help="The id, or its first 6 digits or more.")],
    source: SourceOption = "",
    as_json: Json = False,
) -> int:
    """Print the bytes of one dead letter.

    They go to standard output exactly as they were received, and the reason to standard error. On a terminal,
    what a terminal could take for a command is escaped.
    """
    from shipper.cli.render import print_json, printable
    from shipper.dead_letters import show_letter
    from shipper.load.dead_letters import Filter
    from shipper.model import iso

    shown = asyncio.run(show_letter(settings(), Filter(source_id=source, id=letter)))
    if as_json:
        print_json([_as_dict(entry) | {"raw_base64": b64encode(shown.raw).decode()} for entry in shown.entries])
        return 0
    for entry in shown.entries:
        where = f"{entry.source.source_id}/{entry.lane}"
        print(f"{entry.id}\n{where}, {iso(entry.received_at)}, {entry.size:,} bytes", file=sys.stderr)
        print(f"{entry.reason}: {entry.detail}", file=sys.stderr)
        if entry.resolved_at:
            print(f"the table had a row with the id of its event at {iso(entry.resolved_at)}", file=sys.stderr)
    if sys.stdout.isatty():
        print(printable(shown.raw.decode(errors="backslashreplace"), keep="\n"))
    else:
        sys.stdout.buffer.write(shown.raw)
    return 0


def dead_letters_replay(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID…", help="Ids, or their first 6 digits or more.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every dead letter that is listed.")] = False,
    source: SourceOption = "",
    reason: ReasonOption = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the run report as JSON.")] = False,
) -> int:
    """Send dead letters through the stages again.

    For after an upgrade that understands more. Those for whose event the table then has a row are no longer listed;
    the others stay. It may have had that row before: it is found by the id of the event, the bytes are not compared.
    No letter is ever deleted. One whose bytes come again when its row is gone is listed again.
    """
    from shipper.cli.render import DEAD_LETTERS
    from shipper.cli.ship import ship
    from shipper.dead_letters import replay_letters
    from shipper.load.dead_letters import Filter

    if bool(ids) == every:
        raise UsageError("expected ids or --all", hint="`shipper dead-letters list` shows the ids.")
    chosen = Filter(source_id=source, reason=reason)

    async def work(run: Run) -> None:
        await replay_letters(run, ids or [], chosen)

    return ship(settings(), DEAD_LETTERS, as_json, work)


def _as_dict(entry: Entry) -> dict[str, Any]:
    from shipper.model import iso

    return {
        "workspace": entry.source.workspace_id,
        "source": entry.source.source_id,
        "lane": entry.lane.value,
        "id": entry.id,
        "received_at": iso(entry.received_at),
        "reason": entry.reason,
        "detail": entry.detail,
        "size": entry.size,
        "resolved_at": iso(entry.resolved_at) if entry.resolved_at else None,
    }
