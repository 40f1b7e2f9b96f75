"""Reads archives of events: one JSON object a line, plain, gzip or zstd, from a file or standard input.

A line may also hold a page as the API gives it, or an array; a file may be one such value printed over many lines. A
line that is no JSON at all is given on as it is: normalize makes a dead letter of it, with its bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec

from shipper.errors import InputError
from shipper.fetch import scan
from shipper.fetch.decompress import DamagedError, decompress
from shipper.fetch.paging import envelope_events
from shipper.fetch.scan import IncompleteJSONError
from shipper.model import Page

# The longest line, and the longest file that is one JSON value over many lines.
MAX_LINE = 64 * 1024 * 1024
# A page ends at this many bytes of events, even when it holds few.
_PAGE_BYTES = 8 * 1024 * 1024

_BLANK = b" \t\r\n"
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_EXPECTED = "Expected one JSON event a line (NDJSON, UTF-8), plain, gzip or zstd. `jq -c` makes it from other JSON."


def read_archive(path: Path | None, *, chunk_events: int = 1000) -> Iterator[Page]:
    """The events of an archive in pages of at most `chunk_events`; `path` None or `-` is standard input.

    Blocks on reading: step it in a thread. Memory is bounded by MAX_LINE. Raises InputError when the archive cannot be
    read to its end: a cut or damaged file gives all its whole lines first, and the error says how far that was.
    """
    return _Archive(path).pages(chunk_events)


async def stream_archive(path: Path | None) -> AsyncGenerator[Page]:
    """`read_archive` off the event loop, at most a page ahead.

    It reads on a daemon thread: a process that is asked to stop does not wait for standard input to say something.
    """
    loop = asyncio.get_running_loop()
    pages: asyncio.Queue[Page | BaseException | None] = asyncio.Queue(maxsize=1)

    def read() -> None:
        def give(item: Page | BaseException | None) -> None:
            asyncio.run_coroutine_threadsafe(pages.put(item), loop).result()

        try:
            for page in read_archive(path):
                give(page)
            give(None)
        except CancelledError:
            return  # The loop has ended: nobody waits for the rest.
        except BaseException as error:  # noqa: BLE001 - raised again where the pages are awaited
            give(error)

    threading.Thread(target=read, name="archive", daemon=True).start()
    while (item := await pages.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


class _Archive:
    """One reading of an archive. Counts as it goes, so that an error can say how far it came."""

    def __init__(self, path: Path | None) -> None:
        self._path = None if path is None or str(path) == "-" else path
        self._name = "standard input" if self._path is None else str(self._path)
        self._line = 0
        self._events = 0

    def pages(self, chunk_events: int) -> Iterator[Page]:
        events: list[bytes] = []
        size = 0
        failure: Exception | None = None
        try:
            for event in self._read():
                events.append(event)
                size += len(event)
                if len(events) >= chunk_events or size >= _PAGE_BYTES:
                    self._events += len(events)
                    yield Page(tuple(events))
                    events, size = [], 0
        except (DamagedError, IncompleteJSONError, OSError) as error:
            failure = error
        if events:
            self._events += len(events)
            yield Page(tuple(events))
        if failure is not None:
            raise self._error(failure) from failure

    def _read(self) -> Iterator[bytes]:
        with ExitStack() as stack:
            stream = _standard_input() if self._path is None else stack.enter_context(self._path.open("rb"))
            lines = self._lines(decompress(stream))
            first = next((line for line in lines if line.strip(_BLANK)), b"")
            opening = first.strip(_BLANK)
            if opening and opening[:1] not in (b"{", b"["):
                raise IncompleteJSONError("this is not JSON")
            # No event is a lone bracket: this is one value printed over many lines.
            values = _documents(first, lines) if opening in (b"{", b"[") else itertools.chain((first,), lines)
            for value in values:
                event = value.strip(_BLANK)
                if event[:1] == b"{" and b'"list"' not in event:
                    yield event
                else:
                    yield from _events(event)

    def _lines(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Lines without their line feed; a byte order mark before the first is dropped."""
        parts: list[bytes] = []
        size = 0
        for chunk in chunks:
            head, *rest = chunk.split(b"\n")
            parts.append(head)
            size += len(head)
            if rest:
                yield self._counted(b"".join(parts))
                *whole, last = rest
                for line in whole:
                    self._line += 1
                    yield line
                parts, size = [last], len(last)
            if size > MAX_LINE:
                raise IncompleteJSONError(f"line {self._line + 1} is longer than {MAX_LINE} bytes")
        yield self._counted(b"".join(parts))

    def _counted(self, line: bytes) -> bytes:
        self._line += 1
        return line.removeprefix(scan.BOM) if self._line == 1 else line

    def _error(self, error: Exception) -> InputError:
        if isinstance(error, OSError):
            return InputError(f"cannot read {self._name}: {error.strerror or 'unreadable'}{self._place()}")
        hint = "" if isinstance(error, DamagedError) else _EXPECTED
        return InputError(f"{self._name}: {error}{self._place()}", hint=hint)

    def _place(self) -> str:
        return f", after {self._events} events ({self._line} whole lines)" if self._line else ""


def _standard_input() -> BinaryIO:
    """Below Python's buffer, whose lock would keep a process from ending while a thread waits in a read."""
    raw: BinaryIO = getattr(sys.stdin.buffer, "raw", sys.stdin.buffer)
    return raw


def _documents(first: bytes, lines: Iterator[bytes]) -> Iterator[bytes]:
    """The JSON values of a file that prints each over many lines. It is held in memory, so it may not be long."""
    parts = [first]
    size = len(first)
    for line in lines:
        parts.append(line)
        size += len(line) + 1
        if size > MAX_LINE:
            raise IncompleteJSONError(f"a JSON value over many lines may take {MAX_LINE} bytes, this one is longer")
    return scan.documents(b"\n".join(parts))


def _events(value: bytes) -> Iterator[bytes]:
    """The events in one line or document: itself, those of a page, or the elements of an array."""
    if not value:
        return
    if value[:1] != b"[":
        yield from _page_or_event(value)
        return
    try:
        elements = [bytes(element) for element in _ARRAY.decode(value)]
    except (msgspec.DecodeError, RecursionError):
        try:
            elements = [value[start:end] for start, end in scan.elements(value, 0)]
        except IncompleteJSONError:
            elements = [value]
    for element in elements:
        yield from _page_or_event(element)


def _page_or_event(value: bytes) -> tuple[bytes, ...]:
    events = envelope_events(value)
    return (value,) if events is None else events
