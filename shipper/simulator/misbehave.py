"""How the simulated API can go wrong on request, decided by a seed: the same requests meet the same faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from email.utils import formatdate
from enum import StrEnum
from random import Random
from typing import Any
from zlib import crc32

from shipper.errors import UsageError
from shipper.simulator.events import Event


class Fault(StrEnum):
    """What happens to a single request. The value is the switch that sets how often."""

    ERRORS = "errors"
    THROTTLE = "throttle"
    RESET = "reset"
    CUT = "cut"
    DOCUMENTS = "documents"
    REPEAT_CURSOR = "repeat_cursor"
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """The switches; all off by default.

    Fractions of requests, of which at most one fault meets each: `errors` (500 or 502), `throttle` (429, each form of
    Retry-After), `reset` (the connection, half-way through the body), `cut` (a JSON body that stops early),
    `documents` (several JSON documents in one body, a line break between), `repeat_cursor` (a page again whose last_id
    is the `after` just given), `empty` (no events, yet has_more).

    `retry_after` and `latency` are seconds, `rate` is requests a second (0: no limit), `tenant` is the status with
    which the tenant lane is refused (400 or 403), `revoke_after` is the number of requests that the key still works
    for (0: for ever). With `late`, `late_fraction` of the events show up that many seconds after their effective_at.
    """

    errors: float = 0.0
    throttle: float = 0.0
    reset: float = 0.0
    cut: float = 0.0
    documents: float = 0.0
    repeat_cursor: float = 0.0
    empty: float = 0.0
    retry_after: int = 1
    latency: float = 0.0
    rate: float = 0.0
    tenant: int = 0
    revoke_after: int = 0
    late: float = 0.0
    late_fraction: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"misbehaviour {field.name}: expected a number of at least 0, got {value}")
        fractions = {fault.value: getattr(self, fault) for fault in Fault}
        if sum(fractions.values()) > 1 + 1e-9 or self.late_fraction > 1:
            raise UsageError("misbehaviour: expected fractions that add up to 1 at most", hint=f"Got {fractions}.")
        if self.tenant not in {0, 400, 403}:
            raise UsageError(f"misbehaviour tenant: expected 400 or 403, got {self.tenant}")

    @classmethod
    def parse(cls, text: str) -> Misbehaviour:
        """Read `errors=0.1,latency=0.05`. Raises UsageError for a name that is not a switch or a value that is not
        a number."""
        kinds = {field.name: int if isinstance(field.default, int) else float for field in fields(cls)}
        values: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = (piece.strip() for piece in part.partition("="))
            if name not in kinds:
                near = get_close_matches(name, kinds, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(kinds)}."
                raise UsageError(f"unknown misbehaviour {name!r}", hint=hint)
            try:
                values[name] = kinds[name](value)
            except ValueError:
                expected = "a whole number" if kinds[name] is int else "a number"
                raise UsageError(f"misbehaviour {name}: expected {expected}, got {value!r}") from None
        return cls(**values)

    def fault(self, request: int) -> Fault | None:
        """What happens to the request of this number."""
        point = self.draw(request).random()
        for fault in Fault:
            point -= getattr(self, fault)
            if point < 0:
                return fault
        return None

    def draw(self, request: int, purpose: str = "fault") -> Random:
        """The randomness of one request, one stream per purpose."""
        return Random(f"{self.seed}/{purpose}/{request}")  # noqa: S311 - seeded on purpose

    def retry_after_header(self, request: int, now: float) -> tuple[str, str]:
        """One of the three forms a client has to understand."""
        return self.draw(request, "retry-after").choice(
            (
                ("Retry-After", str(self.retry_after)),
                ("Retry-After", formatdate(now + self.retry_after, usegmt=True)),
                ("retry-after-ms", str(self.retry_after * 1000)),
            )
        )

    def visible(self, now: float) -> Callable[[Event], bool] | None:
        """Which events can be seen at `now`; None when all of them can."""
        if not self.late:
            return None
        threshold = self.late_fraction * 2**32
        return lambda event: event.effective_at + self.late <= now or crc32(event.id.encode()) >= threshold
