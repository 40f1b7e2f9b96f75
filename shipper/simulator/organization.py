"""A simulated organization: its directory, a month of audit events, and the incidents hidden in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shipper.model import Lane, Window
from shipper.simulator.activity import DAY, ordinary_day
from shipper.simulator.catalog import lanes
from shipper.simulator.directory import Directory
from shipper.simulator.events import Event
from shipper.simulator.incidents import LONGEST, STORIES, Story, occurrences

# The oldest event is an hour younger than `days`: a reader that asks for the last `days` a little later gets them all.
_MARGIN = 3_600


@dataclass(frozen=True, slots=True)
class Organization:
    """`events` are all events of both lanes, oldest first. `incidents` maps a story to the ids of its events.

    `now` is the moment the organization is looked at, Unix seconds: no event is younger.
    """

    seed: int
    now: int
    directory: Directory
    events: tuple[Event, ...]
    incidents: Mapping[str, tuple[str, ...]]

    @property
    def id(self) -> str:
        return self.directory.id

    def lane(self, lane: Lane | str) -> tuple[Event, ...]:
        """The events of one lane, oldest first."""
        return tuple(event for event in self.events if event.lane == lane)

    @classmethod
    def build(cls, seed: int = 1, *, now: int, days: int = 30, events_per_day: float = 150) -> Organization:
        """The last `days` up to `now`, about `events_per_day` on average, fewer at night and on weekends.

        A function of its arguments. A later `now` with the same other arguments moves the span: what both spans hold
        is the same to the byte, so nothing is new but the events since.
        """
        if days < 1:
            raise ValueError(f"expected at least 1 day, got {days}")
        directory = Directory.build(seed)
        span = Window(now - days * DAY + _MARGIN, now)
        events = [
            event
            for day in range(span.start // DAY - 1, now // DAY + 2)
            for event in ordinary_day(directory, lanes(), seed, day, events_per_day)
            if span.start <= event.effective_at < span.end
        ]
        incidents = {}
        for name, story in STORIES.items():
            told = _told(story, directory, f"{seed}/incident/{name}", span)
            incidents[name] = tuple(event.id for event in told)
            events += told
        events.sort(key=lambda event: event.key)
        return cls(seed, now, directory, tuple(events), incidents)


def _told(story: Story, directory: Directory, seed: str, span: Window) -> list[Event]:
    """The events of the story that fall into the span. One telling at least is whole."""
    reach = Window(span.start - LONGEST, span.end)
    tellings = occurrences(story, directory, seed, span.seconds - LONGEST, reach)
    return [event for telling in tellings for event in telling if span.start <= event.effective_at < span.end]
