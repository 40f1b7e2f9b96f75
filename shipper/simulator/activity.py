"""An ordinary day of the simulated organization: who did what, and when.

A day is a function of (seed, day number, size) alone. The same day looks the same from every later moment, as in a
real organization: its ids are the same and nothing of it is added or taken away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

from shipper.model import Lane
from shipper.simulator.actions import ACTIONS, ALARMING, Action, Painter
from shipper.simulator.directory import Directory, Project, User
from shipper.simulator.events import MISSING, Actor, Event, api_key, compose, event, serialise, session

DAY = 86_400
# Per weekday, Monday first, with a mean of 1. Day 0 of the Unix calendar was a Thursday.
_WEEK = (1.3, 1.35, 1.35, 1.3, 1.2, 0.25, 0.25)
_THURSDAY = 3
# The share of a tenant-scoped type without a documented payload: about one event in ten together.
_UNDOCUMENTED_WEIGHT = 0.15


def ordinary_day(
    directory: Directory, lanes: Mapping[str, Lane], seed: int, day: int, events_per_day: float
) -> Iterator[Event]:
    """The events of one day of the Unix calendar, in no order.

    People keep their own local hours, so an event can fall into the UTC day before or after.
    """
    rng = Random(f"{seed}/day/{day}")  # noqa: S311 - seeded on purpose
    painter = Painter(rng, directory, seed, day)
    size = events_per_day * _WEEK[(day + _THURSDAY) % 7] * rng.uniform(0.9, 1.1)
    types = list(lanes)
    weights = [_weight(name) for name in types]
    for event_type in rng.choices(types, weights, k=round(size)):
        action = ACTIONS.get(event_type) or _undocumented(rng)
        project = _project(rng, directory, action)
        actor, place_offset = _actor(rng, directory, action)
        if isinstance(actor, dict) and "api_key" in actor:
            # Documented: what an admin key does belongs to the default project.
            project, at = directory.projects[0], day * DAY + rng.randrange(DAY)
        else:
            at = day * DAY + _office_time(rng, action, place_offset)
        payload = None if action.payload is None else painter.fill(action.payload, project)
        body = compose(rng, event_type, at, actor=actor, project=project, payload=payload)
        yield event(body, lanes[event_type], serialise(rng, body))


def _weight(event_type: str) -> float:
    if event_type in ALARMING:
        return 0
    return ACTIONS[event_type].weight if event_type in ACTIONS else _UNDOCUMENTED_WEIGHT


def from_browser(rng: Random, user: User) -> Actor:
    """The user at one of the addresses they always use."""
    return session(rng, user, user.place, rng.choice(user.addresses), user.user_agent)


def _undocumented(rng: Random) -> Action:
    """A type whose payload nobody has published: an id, or no payload at all; often nobody is named as the actor."""
    return Action(0, rng.choice(("owner", "owner", "automation", "system")), rng.choice((None, {"id": "new:tenant"})))


def _project(rng: Random, directory: Directory, action: Action) -> Project | None:
    return rng.choice(directory.projects) if action.in_project else None


def _actor(rng: Random, directory: Directory, action: Action) -> tuple[Actor, float]:
    """Who did it, and how many hours their clock is ahead of UTC."""
    if action.who == "system":
        return rng.choice((None, MISSING)), 0
    if action.who == "automation" or (action.who == "owner" and rng.random() < 0.15):
        return api_key(rng, rng.choice(directory.keys + directory.admin_keys)), 0
    user = rng.choice(directory.owners if action.who == "owner" else directory.users)
    return from_browser(rng, user), user.place.utc_offset


def _office_time(rng: Random, action: Action, utc_offset: float) -> int:
    """Seconds from midnight UTC. One event in fifty is somebody working late."""
    first, busiest, last = action.hours
    hour = rng.uniform(0, 24) if rng.random() < 0.02 else rng.triangular(first, last, busiest)
    return round((hour - utc_offset) * 3600)
