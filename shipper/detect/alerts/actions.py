"""The actions of the outbox: a finding is opened and ended, and opened anew when it grows after an acknowledgement.

`trigger` and `resolve` are the first opening and its end. `trigger/MS` and `resolve/MS` are those after the
acknowledgement at MS, in milliseconds. Pure.
"""

from __future__ import annotations

TRIGGER = "trigger"
RESOLVE = "resolve"


def trigger(acknowledged_at: int = 0) -> str:
    """The action that opens a finding: the first time, or after the acknowledgement at that time in milliseconds."""
    return f"{TRIGGER}/{acknowledged_at}" if acknowledged_at else TRIGGER


def ends(action: str) -> bool:
    """Whether it ends what a trigger opened."""
    return action.partition("/")[0] == RESOLVE


def opening(action: str) -> int:
    """Which opening it is about: the time of the acknowledgement before it in milliseconds, 0 for the first."""
    return int(action.partition("/")[2] or 0)


def end_of(action: str) -> str:
    """The action that ends what this trigger opens."""
    return RESOLVE + action.removeprefix(TRIGGER)
