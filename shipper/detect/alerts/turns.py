"""In which order alerts go out, and how many in one request or in memory at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shipper.detect.alerts.actions import ends, opening
from shipper.detect.alerts.outbox import Alert
from shipper.load.clickhouse import Database

# So many events of findings are in memory at once, per route. One finding always is, whatever its size.
_EVENTS = 20_000

_SIZES = "SELECT findingID, length(events) FROM openai_audit_findings WHERE findingID IN {ids:Array(String)}"


def in_turn(alerts: Sequence[Alert]) -> list[Alert]:
    """Those that failed least often first, then the oldest; of one finding in the order in which it came about.

    So alerts that a receiver can never take do not keep fresh ones from it, and an end never overtakes its beginning.
    """
    begun = {(one.finding_id, opening(one.action)): one.queued_at for one in alerts if not ends(one.action)}

    def told(one: Alert) -> tuple[float, bool, str]:
        return max(one.queued_at, begun.get((one.finding_id, opening(one.action)), 0)), ends(one.action), one.finding_id

    turns: list[tuple[tuple[int, float], Alert]] = []
    latest: dict[str, tuple[int, float]] = {}
    for alert in sorted(alerts, key=told):
        turn = max((alert.attempts, alert.queued_at), latest.get(alert.finding_id, (0, 0.0)))
        latest[alert.finding_id] = turn
        turns.append((turn, alert))
    return [alert for _, alert in sorted(turns, key=lambda pair: pair[0])]


def requests(alerts: Sequence[Alert], batch: int) -> Iterator[list[Alert]]:
    """What goes into one request, `batch` at most: no finding twice, no end with a beginning.

    What failed goes with what failed as often, and in smaller requests each time: the one alert that a receiver cannot
    take is alone in the end.
    """
    request: list[Alert] = []
    for alert in alerts:
        if request and not _fits(alert, request, batch):
            yield request
            request = []
        request.append(alert)
    if request:
        yield request


def _fits(alert: Alert, request: Sequence[Alert], batch: int) -> bool:
    first = request[0]
    return (
        len(request) < batch >> alert.attempts
        and (alert.attempts, ends(alert.action)) == (first.attempts, ends(first.action))
        and all(alert.finding_id != one.finding_id for one in request)
    )


async def portions(database: Database, alerts: Sequence[Alert]) -> list[list[Alert]]:
    """The alerts in portions whose findings are small enough together to be read at once."""
    ids = sorted({alert.finding_id for alert in alerts})
    sizes: dict[str, int] = dict(await database.query(_SIZES, {"ids": ids}))
    parts: list[list[Alert]] = []
    inside: set[str] = set()
    room = 0
    for alert in alerts:
        size = 0 if alert.finding_id in inside else sizes.get(alert.finding_id, 0)
        if not parts or size > room:
            parts.append([])
            inside, room, size = set(), _EVENTS, sizes.get(alert.finding_id, 0)
        parts[-1].append(alert)
        inside.add(alert.finding_id)
        room -= size
    return parts
