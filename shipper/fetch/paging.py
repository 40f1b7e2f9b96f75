"""Pages and the order in which they are asked for. Pure: no clock, no network.

A page is bytes. Each event is a slice of the body, byte for byte, white space inside and invalid UTF-8 included;
nothing is parsed and written again.
"""

from __future__ import annotations

from typing import Final

import msgspec

from shipper.errors import ApiProtocolError
from shipper.fetch import scan
from shipper.fetch.scan import IncompleteJSONError
from shipper.model import Page

_ABSENT: Final = msgspec.Raw()


class _Envelope(msgspec.Struct, gc=False):
    """The API's list object: events sliced, the rest as written. `data` is None when it is null."""

    data: list[msgspec.Raw] | None
    has_more: msgspec.Raw = _ABSENT
    last_id: msgspec.Raw = _ABSENT
    object: msgspec.Raw = _ABSENT


class _Moment(msgspec.Struct, gc=False):
    effective_at: int


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_MOMENT = msgspec.json.Decoder(_Moment)
_TEXT = msgspec.json.Decoder(str)
_FLAG = {b"": None, b"null": None, b"true": True, b"false": False}


def parse_page(body: bytes) -> Page:
    """Slice the events out of an answer.

    The body is one list object, or several that follow one another; then the last `has_more` and the last `last_id`
    count. A page without `has_more` is taken to have a successor as long as it holds events: one request too many,
    never an event too few. A cursor that is missing is the id of the last event. `data: null` is an empty list only
    when the page says that nothing follows.

    Raises IncompleteJSONError for a body that is cut, and ApiProtocolError for one that is whole and not a page.
    """
    envelopes = _envelopes(body)
    events = tuple(bytes(event) for envelope in envelopes for event in envelope.data or ())
    flags = [flag for envelope in envelopes if (flag := _flag(envelope)) is not None]
    cursors = [cursor for envelope in envelopes if (cursor := _text(bytes(envelope.last_id)))]
    if any(envelope.data is None for envelope in envelopes) and (cursors or not flags or flags[-1]):
        raise _no_list("null")
    has_more = flags[-1] if flags else bool(events)
    last_id = cursors[-1] if cursors else None
    if has_more and events and last_id is None:
        last_id = _text(scan.member(events[-1], b'"id"'))
        if last_id is None:
            raise ApiProtocolError("expected last_id beside has_more, and the page's last event has no id either")
    return Page(events, has_more, last_id)


def moments(page: Page) -> tuple[int, ...]:
    """effective_at of the first and the last event, for a guess at what the page covers; nothing unless both say it."""
    try:
        return tuple(_MOMENT.decode(event).effective_at for event in (*page.events[:1], *page.events[-1:]))
    except (msgspec.DecodeError, RecursionError):
        return ()


def envelope_events(document: bytes) -> tuple[bytes, ...] | None:
    """The events of a list object (`"object": "list"` beside a `data` array), None for any other JSON value."""
    if document[:1] != b"{" or b'"list"' not in document:
        return None
    try:
        envelope = _envelope(document)
    except (ApiProtocolError, IncompleteJSONError):
        return None
    if bytes(envelope.object) != b'"list"' or envelope.data is None:
        return None
    return tuple(map(bytes, envelope.data))


def _envelopes(body: bytes) -> list[_Envelope]:
    try:
        return [_ENVELOPE.decode(body)]
    except (msgspec.DecodeError, RecursionError):
        pass
    first = body.removeprefix(scan.BOM).lstrip()[:1]
    if not first:
        raise IncompleteJSONError("the body is empty")
    if first != b"{":
        raise ApiProtocolError(
            f"expected a JSON object, got a body that begins with {first.decode('ascii', 'backslashreplace')!r}",
            hint="Something other than the Admin API answered: check base_url and the proxy.",
        )
    return [_envelope(document) for document in scan.documents(body)]


def _envelope(document: bytes) -> _Envelope:
    """One list object. What the strict parser refuses is sliced by the scanner, so that one event stops no other."""
    try:
        return _ENVELOPE.decode(document)
    except (msgspec.DecodeError, RecursionError):
        pass
    if document[:1] != b"{":
        raise IncompleteJSONError("expected a JSON object after the first one")
    values = {key: (start, end) for key, start, end in scan.members(document, 0)}
    raw = {key: msgspec.Raw(document[start:end]) for key, (start, end) in values.items()}
    start, end = values.get(b'"data"', (0, 0))
    data: list[msgspec.Raw] | None = None
    if document[start:end] != b"null":
        if document[start : start + 1] != b"[":
            raise _no_list("something else" if end else "none")
        data = [msgspec.Raw(document[first:last]) for first, last in scan.elements(document, start)]
    return _Envelope(
        data, raw.get(b'"has_more"', _ABSENT), raw.get(b'"last_id"', _ABSENT), raw.get(b'"object"', _ABSENT)
    )


def _flag(envelope: _Envelope) -> bool | None:
    raw = bytes(envelope.has_more)
    if raw not in _FLAG:
        raise ApiProtocolError("expected has_more to be true or false")
    return _FLAG[raw]


def _text(raw: bytes) -> str | None:
    """A JSON string that can be sent as a cursor; None for anything else."""
    try:
        return _TEXT.decode(raw) or None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _no_list(got: str) -> ApiProtocolError:
    return ApiProtocolError(f"expected a list of events under data, got {got}")


class Pager:
    """Decides which page to ask for next, and when the window has been read whole.

    Ask with `after` (None: no cursor) until `done`; give each page to `receive`. It ends for every server: a cursor
    comes once, a page is not sent twice, and empty pages that promise more are followed a bounded number of times.
    """

    __slots__ = ("_empty", "_previous", "_repeats", "_seen", "after", "done", "pages")

    MAX_REPEATS = 3
    MAX_EMPTY = 100

    def __init__(self) -> None:
        self.after: str | None = None
        self.done = False
        self.pages = 0
        self._seen: set[str] = set()
        self._previous: tuple[bytes, ...] = ()
        self._empty = 0
        self._repeats = 0

    def receive(self, page: Page) -> None:
        """Move on. Raises ApiProtocolError for a page that makes no progress."""
        self.pages += 1
        if page.events and page.events == self._previous:
            raise ApiProtocolError(f"page {self.pages} holds the same events as the page before it")
        self._previous = page.events or self._previous
        if not page.has_more:
            self.done = True
        elif page.events:
            self._empty = self._repeats = 0
            self._follow(page.last_id)
        else:
            self._receive_empty(page.last_id)

    def _receive_empty(self, last_id: str | None) -> None:
        """An empty page with has_more: follow a cursor that is new, else ask the same again, both bounded."""
        self._empty += 1
        if self._empty > self.MAX_EMPTY:
            raise ApiProtocolError(f"{self._empty} empty pages in a row said that more follows")
        if last_id is not None and last_id != self.after:
            self._repeats = 0
            self._follow(last_id)
            return
        self._repeats += 1
        if self._repeats > self.MAX_REPEATS:
            raise ApiProtocolError(
                f"the page after {self.after!r} stayed empty {self._repeats} times while it said that more follows"
            )

    def _follow(self, cursor: str | None) -> None:
        if cursor is None:
            raise ApiProtocolError(f"page {self.pages} says that more follows and gives no cursor")
        if cursor in self._seen:
            raise ApiProtocolError(f"the cursor {cursor!r} came twice: page {self.pages} makes no progress")
        self._seen.add(cursor)
        self.after = cursor
