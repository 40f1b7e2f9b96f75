"""Lengths and moments of time as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from shipper.errors import UsageError
from shipper.model import MAX_TIME

_UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d{1,9})\s*([smhdw]?)")
# Longer than any setting needs, and short enough for every arithmetic with it.
_LONGEST = timedelta(days=36_500)


def parse_duration(value: object) -> timedelta:
    """Read `90`, `90s`, `15m`, `1h`, `30d` or `2w`, up to 100 years. Raises ValueError for anything else."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(str(value).strip())
    if match is None:
        raise ValueError("expected a duration such as 90s, 15m, 1h, 30d or 2w")
    duration = timedelta(seconds=int(match[1]) * _UNIT_SECONDS[match[2]])
    if duration > _LONGEST:
        raise ValueError("a duration is at most 100 years")
    return duration


def format_duration(value: timedelta) -> str:
    """The shortest form that `parse_duration` reads back."""
    seconds = int(value.total_seconds())
    for unit in "dhm":
        if seconds and seconds % _UNIT_SECONDS[unit] == 0:
            return f"{seconds // _UNIT_SECONDS[unit]}{unit}"
    return f"{seconds}s"


def parse_moment(text: str, now: int) -> int:
    """Unix seconds of `2026-11-01`, `2026-11-01T08:00:00Z` (UTC unless it names a zone), or `30d` before `now`.

    Raises UsageError for anything else, a number without a unit included, and for a moment before 1970.
    """
    text = text.strip()
    try:
        if text[-1:] in set("smhdw"):
            seconds = now - int(parse_duration(text).total_seconds())
        else:
            moment = datetime.fromisoformat(text)
            seconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except ValueError:
        raise UsageError(f"expected a date, a time or a duration such as 30d, got {text!r}") from None
    if not 0 <= seconds <= MAX_TIME:
        raise UsageError(f"{text!r} is not between 1970 and 2106")
    return seconds
