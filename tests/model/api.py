"""The API of the model: an audit log whose events become visible when the model says so, read page by page."""

from __future__ import annotations

import hashlib
from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from shipper.model import Lane, Window
from tests.model.time import Time


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """`rank` orders the events of one second; it has nothing to do with the order in which they became visible."""

    effective_at: int
    rank: str
    visible_at: int = field(compare=False)
    lane: Lane = field(compare=False)
    id: str = field(compare=False)
    raw: bytes = field(compare=False)
    becomes_row: bool = field(compare=False)

    @property
    def lateness(self) -> int:
        return self.visible_at - self.effective_at


# The white space differs, so that bytes written anew would be told from bytes as received.
_GOOD = b'{"id":"%b",  "type":"login.succeeded","effective_at":%d }'
_TIMELESS = b'{"id":"%b","type":"user.added", "effective_at":null}'
UNWRITABLE = "too.odd"
_ODD = b'{"id":"%b","effective_at":%d,\n"type":"too.odd"}'
KINDS = ("good", "timeless", "odd")


class Api:
    """`page_size` is the most it gives at once, whatever is asked for. A `blunt` one cannot tell that a page that it
    filled is the last."""

    def __init__(self, clock: Time, page_size: int, *, blunt: bool) -> None:
        self._clock = clock
        self._page_size = page_size
        self._blunt = blunt
        self.events: dict[str, Event] = {}
        self._ordered: dict[Lane, list[Event]] = {Lane.ORGANIZATION: [], Lane.TENANT: []}

    def add(self, effective_at: int, visible_at: int, lane: Lane, kind: str) -> Event:
        number = len(self.events)
        rank = hashlib.sha256(b"%d" % number).hexdigest()[:8]
        event_id = f"audit_log-{rank}-{number}"
        name = event_id.encode()
        raw = {"good": _GOOD, "odd": _ODD}.get(kind, _TIMELESS)
        raw = raw % name if kind == "timeless" else raw % (name, effective_at)
        event = Event(effective_at, rank, visible_at, lane, event_id, raw, becomes_row=kind == "good")
        self.events[event_id] = event
        insort(self._ordered[lane], event)
        return event

    def within(self, lane: Lane, window: Window, visible_at: int) -> Iterable[Event]:
        """The events of the window that were visible at the moment."""
        return (
            event
            for event in self._ordered[lane]
            if window.start <= event.effective_at < window.end and event.visible_at <= visible_at
        )

    def page(self, params: Sequence[tuple[str, str]]) -> bytes:
        """The body of the answer: the newest events first, those after the cursor."""
        asked = dict(params)
        assert len(asked) == len(params), f"a parameter came twice: {params}"
        start = int(asked.pop("effective_at[gte]")) if "effective_at[gte]" in asked else 0
        if "effective_at[gt]" in asked:
            start = int(asked.pop("effective_at[gt]")) + 1
        window = Window(start, int(asked.pop("effective_at[lt]")))
        lane = Lane.TENANT if asked.pop("tenant_only", "") == "true" else Lane.ORGANIZATION
        size = min(int(asked.pop("limit")), self._page_size)
        cursor = asked.pop("after", None)
        assert not asked, f"no document names these parameters: {asked}"
        found = [*self.within(lane, window, self._clock.true)][::-1]
        if cursor is not None:
            last = self.events[cursor]
            found = [event for event in found if event < last]
        return _body(found[:size], has_more=len(found) > size or (self._blunt and len(found) == size))


def _body(events: Sequence[Event], *, has_more: bool) -> bytes:
    ids = [b'"%b"' % event.id.encode() for event in events]
    return b'{"object":"list","data":[%b],"first_id":%b,"last_id":%b,"has_more":%b}' % (
        b", ".join(event.raw for event in events),
        ids[0] if ids else b"null",
        ids[-1] if ids else b"null",
        b"true" if has_more else b"false",
    )
