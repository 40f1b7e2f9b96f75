"""What a torture run does, as data: a function of its seed and nothing else.

Faults are placed by counts (the n-th page, insert or commit that a proxy sees), never by the clock. What the shipper
does in between takes the time it takes, so that a seed repeats the faults and not the interleaving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from shipper.simulator import Misbehaviour


class Fault(StrEnum):
    """Everything that is done to a run. The value is its line in the table."""

    API_ERROR = "API: 500 and 502"
    API_THROTTLE = "API: 429, each form of Retry-After"
    API_RESET = "API: connection ends in the body"
    API_CUT = "API: JSON cut"
    API_DOCUMENTS = "API: several documents in a body"
    API_EMPTY = "API: empty page with has_more"
    API_REPEAT = "API: cursor repeated"
    API_REVOKED = "API: key revoked in mid-run"
    LATE_EVENTS = "API: events that show up late"
    DB_RESET = "ClickHouse: connection reset"
    DB_CUT_INSERT = "ClickHouse: insert cut in the body"
    DB_LOST_ANSWER = "ClickHouse: insert done, answer lost"
    DB_LOST_COMMIT = "ClickHouse: commit done, answer lost"
    DB_MEMORY = "ClickHouse: 241 memory limit"
    DB_READ_ONLY = "ClickHouse: 242 read-only"
    DB_TABLE_READ_ONLY = "ClickHouse: table made read-only"
    DB_TABLE_MISSING = "ClickHouse: 60 table missing"
    DB_KILLED = "ClickHouse: SIGKILL during an insert"
    DB_KILLED_AFTER = "ClickHouse: SIGKILL after an insert"
    DB_HUNG = "ClickHouse: hung (SIGSTOP)"
    DISK_FULL = "embedded: disk full"
    KILLED = "shipper: SIGKILL"
    TERMINATED = "shipper: SIGTERM"
    TWO_AT_ONCE = "shipper: two at once"


class Point(StrEnum):
    """When a signal reaches the shipper, or ClickHouse is made to hang."""

    PAGE = "page asked for"
    PAGE_ANSWERED = "page answered, not relayed"
    INSERT = "insert half sent"
    INSERT_DONE = "insert done, not answered"
    COMMIT = "commit half sent"
    COMMIT_DONE = "commit done, not answered"


# The simulator's switch for each fault of an answer, and the largest share of answers it meets.
_SWITCHES = {
    Fault.API_ERROR: ("errors", 0.3),
    Fault.API_THROTTLE: ("throttle", 0.4),
    Fault.API_RESET: ("reset", 0.3),
    Fault.API_CUT: ("cut", 0.3),
    Fault.API_DOCUMENTS: ("documents", 0.6),
    Fault.API_EMPTY: ("empty", 0.25),
    Fault.API_REPEAT: ("repeat_cursor", 0.3),
}
_ON_REQUESTS = (
    *(Fault.DB_RESET, Fault.DB_CUT_INSERT, Fault.DB_LOST_ANSWER, Fault.DB_LOST_COMMIT, Fault.DB_MEMORY),
    *(Fault.DB_READ_ONLY, Fault.DB_KILLED, Fault.DB_KILLED_AFTER, Fault.DB_HUNG),
    *(Fault.DB_TABLE_READ_ONLY, Fault.DB_TABLE_MISSING),
)
_OF_TABLE = {Fault.DB_TABLE_READ_ONLY, Fault.DB_TABLE_MISSING}
_OF_EMBEDDED = (Point.PAGE, Point.PAGE_ANSWERED)


@dataclass(frozen=True, slots=True)
class Spoil:
    """One fault on ClickHouse's side: on `count` of its kind of request, beginning with the `first`."""

    fault: Fault
    first: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal to the shipper, at the `first` request of that kind. `delay` seconds pass first where no connection
    shows what the shipper is at (the embedded engine)."""

    fault: Fault
    point: Point
    first: int
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Round:
    """One start of the shipper (or two), and what it meets. `disk_full` is the page at which there is no room left."""

    command: str
    misbehaviour: Misbehaviour
    spoils: tuple[Spoil, ...] = ()
    signal: Signal | None = None
    two: bool = False
    late_events: int = 0
    disk_full: int = 0
    retries: int = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """A torture run. `window` and `batch_rows` are settings of the shipper: they move where everything lies."""

    seed: int
    embedded: bool
    window: str
    batch_rows: int
    concurrency: int
    rounds: tuple[Round, ...]

    @classmethod
    def of(cls, seed: int) -> Plan:
        rng = Random(f"torture/{seed}")
        embedded = rng.random() < 0.2
        return cls(
            seed,
            embedded,
            window=rng.choice(("4h", "12h", "1d", "3d", "3d")),
            batch_rows=rng.choice((20, 50, 100, 20_000)),
            concurrency=rng.choice((1, 2, 4)),
            rounds=tuple(_round(rng, embedded=embedded) for _ in range(rng.choice((1, 1, 2)))),
        )


def _round(rng: Random, *, embedded: bool) -> Round:
    faults = [] if embedded else _some(rng, _ON_REQUESTS, (0, 1, 1, 2))
    if set(faults) >= _OF_TABLE:
        faults.pop()
    spoils = tuple(_spoil(rng, fault) for fault in faults)
    return Round(
        command=rng.choice(("run", "backfill")),
        misbehaviour=_misbehaviour(rng, _some(rng, tuple(_SWITCHES), (0, 0, 1, 1, 2))),
        spoils=spoils,
        signal=_signal(rng, embedded=embedded) if rng.random() < 0.6 else None,
        # One directory belongs to one process; that a second is turned away is tested by name.
        two=not embedded and rng.random() < 0.15,
        late_events=rng.choice((0, 0, 3)),
        disk_full=rng.randrange(1, 13) if embedded and rng.random() < 0.5 else 0,
        retries=rng.choice((0, 2, 5)),
    )


def _some(rng: Random, faults: Sequence[Fault], counts: Sequence[int]) -> list[Fault]:
    return rng.sample(faults, rng.choice(counts))


def _misbehaviour(rng: Random, faults: Sequence[Fault]) -> Misbehaviour:
    shares: dict[str, Any] = {name: rng.uniform(0.1, most) for name, most in map(_SWITCHES.__getitem__, faults)}
    revoke_after = rng.randrange(1, 15) if rng.random() < 0.08 else 0
    return Misbehaviour(**shares, revoke_after=revoke_after, seed=rng.randrange(1_000_000))


def _spoil(rng: Random, fault: Fault) -> Spoil:
    if fault is Fault.DB_RESET:
        return Spoil(fault, rng.randrange(1, 25), rng.randrange(1, 6))
    first = rng.choice((1, 1, 2, 3))
    if fault in {Fault.DB_MEMORY, Fault.DB_READ_ONLY}:
        return Spoil(fault, first, rng.randrange(1, 5))
    return Spoil(fault, first)


def _signal(rng: Random, *, embedded: bool) -> Signal:
    fault = rng.choice((Fault.KILLED, Fault.KILLED, Fault.TERMINATED))
    point = rng.choice(_OF_EMBEDDED if embedded else tuple(Point))
    first = rng.randrange(1, 13) if point in _OF_EMBEDDED else rng.choice((1, 1, 2, 3, 4))
    return Signal(fault, point, first, delay=rng.choice((0.0, rng.uniform(0, 0.3))) if embedded else 0.0)
