"""The events that every contender ships: the simulator's, from an organization that is larger than the demo's.

Thirty days, 312 people, about three thousand addresses. The days lie in the past and never move, so that a file made
once stays good, and the same events are shipped on every machine.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from random import Random
from typing import NamedTuple

import orjson

from shipper.model import Lane, iso
from shipper.simulator.activity import DAY, ordinary_day
from shipper.simulator.catalog import lanes
from shipper.simulator.directory import Directory
from shipper.simulator.events import Event as Simulated
from shipper.simulator.organization import Organization
from tests.bench.files import CACHE, ROOT, made

# A Friday noon.
NOW = 1_763_726_400
DAYS = 30
SINCE, UNTIL = iso(NOW - DAYS * DAY), iso(NOW)
_DIRECTORIES = 12
_ADDRESSES_EACH = 10
# Larger numbers of events are these again under other ids: making events takes twenty times as long as copying them.
_ORIGINALS = 200_000


class Event(NamedTuple):
    """Sorts as the API orders events: by time, those of one second by id."""

    at: int
    id: str
    lane: Lane
    raw: bytes


def archive(count: int) -> Path:
    """An NDJSON file of exactly `count` events, oldest first, made when it is not there yet.

    In a process of its own: a million events take gigabytes, which Python would keep.
    """
    command = [sys.executable, "-m", "tests.bench.corpus", str(count)]
    return made(
        CACHE / f"events-{count}.ndjson", lambda path: subprocess.run([*command, str(path)], cwd=ROOT, check=True)
    )


def read(path: Path) -> Iterator[Event]:
    """The events of such a file."""
    lane_of = lanes()
    with path.open("rb") as file:
        for line in file:
            raw = line.rstrip(b"\n")
            body = orjson.loads(raw)
            yield Event(body["effective_at"], body["id"], lane_of[body["type"]], raw)


def directory() -> Directory:
    """Twelve of the simulator's organizations in one, everybody at ten addresses in place of two."""
    rng = Random("bench/addresses")
    parts = [Directory.build(seed) for seed in range(_DIRECTORIES)]
    users = tuple(
        replace(user, addresses=tuple(user.place.address(rng) for _ in range(_ADDRESSES_EACH)))
        for part in parts
        for user in part.users
    )
    return replace(
        parts[0],
        users=users,
        projects=tuple(chain.from_iterable(part.projects for part in parts)),
        service_accounts=tuple(chain.from_iterable(part.service_accounts for part in parts)),
        keys=tuple(chain.from_iterable(part.keys for part in parts)),
        admin_keys=tuple(chain.from_iterable(part.admin_keys for part in parts)),
        groups=tuple(chain.from_iterable(part.groups for part in parts)),
        roles=tuple(chain.from_iterable(part.roles for part in parts)),
        invites=tuple(chain.from_iterable(part.invites for part in parts)),
    )


def events(count: int) -> list[Event]:
    """Exactly `count` events, oldest first."""
    copies = -(-count // _ORIGINALS)
    originals = _originals(-(-count // copies))
    made = [event for number in range(copies) for event in (_copy(one, number) for one in originals)]
    # Evenly: none of the days may be cut off.
    return [made[index * len(made) // count] for index in range(count)] if copies == 1 else sorted(made)[:count]


def write_now(path: Path, now: int) -> None:
    """Write the demo's organization as it is now: a few thousand events, the last of them minutes old."""
    chosen = sorted(map(_event, Organization.build(1, now=now).events))
    path.write_bytes(b"".join(event.raw + b"\n" for event in chosen))


def _event(event: Simulated) -> Event:
    return Event(event.effective_at, event.id, event.lane, _one_line(event.raw))


def _originals(count: int) -> list[Event]:
    whole = directory()
    first, last = NOW // DAY - DAYS, NOW // DAY + 1
    found: list[Event] = []
    # A day is up to a tenth larger or smaller than asked for, and the first and the last are half.
    per_day = count / DAYS * 1.15 + 5
    for day in range(first, last):
        for event in ordinary_day(whole, lanes(), 1, day, per_day):
            if NOW - DAYS * DAY <= event.effective_at < NOW:
                found.append(_event(event))  # noqa: PERF401 - two loops and a condition read better so
    found.sort()
    if len(found) < count:
        raise ValueError(f"expected {count} events at least, got {len(found)}")
    return [found[index * len(found) // count] for index in range(count)]


def _one_line(raw: bytes) -> bytes:
    """An archive has an event a line. The few that the API writes over many are written anew, here and for all."""
    return orjson.dumps(orjson.loads(raw)) if b"\n" in raw or b"\r" in raw else raw


def _copy(event: Event, number: int) -> Event:
    if not number:
        return event
    prefix, _, rest = event.id.partition("-")
    # One digit longer than any original.
    name = f"{prefix}-{number}{rest}"
    return event._replace(id=name, raw=event.raw.replace(event.id.encode(), name.encode()))


if __name__ == "__main__":
    with Path(sys.argv[2]).open("wb") as file:
        file.writelines(event.raw + b"\n" for event in events(int(sys.argv[1])))
