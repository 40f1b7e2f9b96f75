"""Archives: every form they come in, and how far a broken one is read."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from shipper.errors import ExitCode, InputError
from shipper.fetch import archive
from shipper.fetch.archive import read_archive
from shipper.model import Page

EVENTS = tuple(b'{"id":"e%d","type":"login.succeeded","n":[1, 2]}' % number for number in range(25))
NDJSON = b"\n".join(EVENTS) + b"\n"
PRETTY = json.dumps(
    {"object": "list", "data": [json.loads(event) for event in EVENTS[:3]], "has_more": False}, indent=2
)
SKIPPABLE = b"\x5a\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"


def _streamed(data: bytes) -> bytes:
    packer = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    return packer.compress(data) + packer.flush()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip members": lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]),
    "gzip padded": lambda data: gzip.compress(data[:100]) + b"\0" * 9 + gzip.compress(data[100:]) + b"\0" * 5000,
    "gzip empty member": lambda data: gzip.compress(b"") + gzip.compress(data),
    "zstd": zstandard.compress,
    "zstd frames": lambda data: zstandard.compress(data[:100]) + zstandard.compress(data[100:]),
    "zstd skippable": lambda data: SKIPPABLE + zstandard.compress(data) + SKIPPABLE,
    "zstd streamed": _streamed,
}


def read(path: Path | None, *, chunk_events: int = 1000) -> tuple[bytes, ...]:
    return tuple(event for page in read_archive(path, chunk_events=chunk_events) for event in page.events)


def read_broken(path: Path | None) -> tuple[tuple[bytes, ...], InputError]:
    """What came before the error, and the error."""
    events: list[bytes] = []

    def collect() -> None:
        for page in read_archive(path, chunk_events=10):
            events.extend(page.events)

    with pytest.raises(InputError) as caught:
        collect()
    assert caught.value.exit_code == ExitCode.DATAERR
    return tuple(events), caught.value


@pytest.fixture
def put(tmp_path: Path) -> Callable[[bytes], Path]:
    """Writes an archive whose name says nothing."""

    def write(data: bytes) -> Path:
        path = tmp_path / "archive.txt"
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("pack", PACKED.values(), ids=PACKED.keys())
def test_each_packing_gives_the_same_events(put: Callable[[bytes], Path], pack: Callable[[bytes], bytes]) -> None:
    """Told by the first bytes, whatever the name; several members or frames are one archive."""
    assert read(put(pack(NDJSON))) == EVENTS


FORMS: dict[str, tuple[bytes, tuple[bytes, ...]]] = {
    "empty file": (b"", ()),
    "blank lines only": (b"\n\r\n  \n", ()),
    "no last line feed": (b'{"id":"a"}\n{"id":"b"}', (b'{"id":"a"}', b'{"id":"b"}')),
    "CRLF": (b'{"id":"a"}\r\n{"id":"b"}\r\n', (b'{"id":"a"}', b'{"id":"b"}')),
    "byte order mark": (b'\xef\xbb\xbf{"id":"a"}\n', (b'{"id":"a"}',)),
    "blank lines and spaces around": (
        b'\n\n \t{ "id" : "a" } \n\r\n{"id":"b"}\n\n',
        (b'{ "id" : "a" }', b'{"id":"b"}'),
    ),
    "bytes kept": (b'{"id":"\xff\\ud800\x00\x1c"}\n', (b'{"id":"\xff\\ud800\x00\x1c"}',)),
    "no JSON between": (b'{"id":"a"}\nnot json\n{"id":"b"\n7\n', (b'{"id":"a"}', b"not json", b'{"id":"b"', b"7")),
    "pages": (
        b'{"object":"list","data":[{"id":"a"}, {"id":"b"}]}\n{"object": "list", "data": []}\n{"id":"c"}',
        (b'{"id":"a"}', b'{"id":"b"}', b'{"id":"c"}'),
    ),
    "page with a surrogate": (
        b'{"object":"list","data":[{"id":"\\ud800"},{"id":"b"}]}\n',
        (b'{"id":"\\ud800"}', b'{"id":"b"}'),
    ),
    "cut page": (
        b'{"object":"list","data":[{"id":"a"}\n{"id":"b"}\n',
        (b'{"object":"list","data":[{"id":"a"}', b'{"id":"b"}'),
    ),
    "array on a line": (b'[{"id":"a"},{"id":"b"} ]\n', (b'{"id":"a"}', b'{"id":"b"}')),
    "array with a surrogate": (b'[{"id":"\\ud800"},{"id":"b"}]', (b'{"id":"\\ud800"}', b'{"id":"b"}')),
    "cut array": (b'[{"id":"a"},{"id":\n', (b'[{"id":"a"},{"id":',)),
    "array of pages": (b'[{"object":"list","data":[{"id":"a"}]},{"id":"b"}]', (b'{"id":"a"}', b'{"id":"b"}')),
    "empty array": (b"[]\n", ()),
    "pretty array": (b'[\n  {\n    "id": "a"\n  },\n  {"id":"b"}\n]\n', (b'{\n    "id": "a"\n  }', b'{"id":"b"}')),
    "pretty events": (b'{\n  "id": "a"\r\n}\n{\n  "id": "b"\n}\n', (b'{\n  "id": "a"\r\n}', b'{\n  "id": "b"\n}')),
    "pretty, then lines": (b'{\n"id":"a"}\n{"id":"b"}\n', (b'{\n"id":"a"}', b'{"id":"b"}')),
}


@pytest.mark.parametrize(("data", "events"), FORMS.values(), ids=FORMS.keys())
def test_each_form_of_an_archive(put: Callable[[bytes], Path], data: bytes, events: tuple[bytes, ...]) -> None:
    """Lines, pages, arrays and printed documents; each event keeps its bytes, and no line goes missing."""
    assert read(put(data)) == events


def test_a_printed_page_gives_its_events_as_printed(put: Callable[[bytes], Path]) -> None:
    """What `jq .` or json.dumps(indent=2) made of an answer."""
    events = read(put(PRETTY.encode()))
    assert [json.loads(event) for event in events] == [json.loads(event) for event in EVENTS[:3]]
    assert all(event in PRETTY.encode() for event in events)


def test_pages_hold_at_most_the_asked_number_of_events(put: Callable[[bytes], Path]) -> None:
    """The last one holds the rest; a page of an archive has no cursor."""
    pages = list(read_archive(put(NDJSON), chunk_events=10))
    assert pages == [Page(EVENTS[:10]), Page(EVENTS[10:20]), Page(EVENTS[20:])]


def test_large_events_make_small_pages(put: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is bounded in bytes too."""
    monkeypatch.setattr(archive, "_PAGE_BYTES", 100)
    assert [len(page.events) for page in read_archive(put(NDJSON))] == [3] * 8 + [1]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("pack", [PACKED["plain"], PACKED["gzip"], PACKED["zstd"]], ids=["plain", "gzip", "zstd"])
def test_random_lines_come_back_as_they_were(
    put: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes], seed: int
) -> None:
    """Whatever the places where the reader's chunks end."""
    chance = random.Random(seed)
    monkeypatch.setattr("shipper.fetch.decompress._READ", chance.randrange(1, 50))
    lines = [b"{%s}" % chance.randbytes(chance.randrange(60)).translate(None, b"\n") for _ in range(100)]
    ends = [chance.choice([b"\n", b"\r\n", b"\n\n"]) for _ in lines]
    data = b"".join(line + end for line, end in zip(lines, ends, strict=True))
    assert read(put(pack(data)), chunk_events=7) == tuple(lines)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_cut_file_gives_its_whole_lines_and_then_the_error(put: Callable[[bytes], Path], name: str) -> None:
    """Nothing before the cut is lost, and the half line at the cut is not taken for an event."""
    many = b"".join(
        b'{"id":"e%d","x":"%s"}\n' % (n, random.Random(n).randbytes(20).hex().encode()) for n in range(20_000)
    )
    packed = PACKED[name](many)
    events, error = read_broken(put(packed[: len(packed) // 2]))
    assert 3_000 < len(events) < 17_000
    assert many.startswith(b"\n".join(events) + b"\n")
    assert f"the {name} data is cut, after {len(events)} events" in str(error)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_file_cut_at_its_very_end_is_cut(put: Callable[[bytes], Path], name: str) -> None:
    """Even when only the checksum is missing."""
    packed = _streamed(NDJSON) if name == "zstd" else gzip.compress(NDJSON)
    _, error = read_broken(put(packed[:-1]))
    assert f"the {name} data is cut" in str(error)


BROKEN: dict[str, tuple[bytes, str]] = {
    "gzip with a wrong checksum": (gzip.compress(NDJSON)[:-8] + b"12345678", "the gzip data is damaged"),
    "gzip with something after it": (gzip.compress(NDJSON) + b"tail", "the gzip data is damaged"),
    "zstd with something after it": (zstandard.compress(NDJSON) + b"tail", "the zstd data is damaged"),
    "zstd magic only": (b"\x28\xb5\x2f\xfd", "the zstd data is cut"),
    "gzip magic only": (b"\x1f\x8b", "the gzip data is cut"),
    "gzip of another method": (b"\x1f\x8b\x01" + b"x" * 40, "the gzip data is damaged"),
    "text": (b"hello\nworld\n", "this is not JSON"),
    "CSV": (b"id,type\n1,2\n", "this is not JSON"),
    "UTF-16": ('{"id":"a"}\n'.encode("utf-16"), "this is not JSON"),
    "zlib": (zlib.compress(NDJSON), "this is not JSON"),
    "printed page, cut": (PRETTY.encode()[:-5], "the JSON ends"),
    "printed page, garbled": (b'{\n"a":]}\n', "a bracket at byte 6 closes nothing"),
    "printed array, cut": (b'[\n{"id":"a"},\n{"id":', "the JSON ends"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_archive_is_said(put: Callable[[bytes], Path], data: bytes, message: str) -> None:
    """With the name of the file, how far it came, and what is expected."""
    path = put(data)
    _, error = read_broken(path)
    assert str(error).startswith(f"{path}: {message}")
    assert bool(error.hint) is ("data is" not in message)


def test_a_printed_file_gives_the_documents_before_the_cut(put: Callable[[bytes], Path]) -> None:
    """Whole ones come through."""
    events, error = read_broken(put(b'{\n"id":"a"\n}\n{\n"id":"b"\n'))
    assert events == (b'{\n"id":"a"\n}',)
    assert ", after 1 events (6 whole lines)" in str(error)


@pytest.mark.parametrize("data", [b'{"id":"' + b"x" * 2_000_000 + b'"}\n', b"{\n" + b'"a":1,\n' * 300_000])
def test_what_does_not_fit_in_memory_is_refused_and_not_skipped(
    put: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    """A line or a printed document that is too long is an error; what came before was given."""
    monkeypatch.setattr(archive, "MAX_LINE", 1_000_000)
    events, error = read_broken(put(data))
    assert events == ()
    assert "1000000 bytes" in str(error)
    lines = b'{"id":"a"}\n{"id":"b"}\n'
    if data[1:2] != b"\n":
        events, error = read_broken(put(lines + data))
        assert events == (b'{"id":"a"}', b'{"id":"b"}')
        assert "line 3 is longer than 1000000 bytes, after 2 events (2 whole lines)" in str(error)


def test_a_missing_file_a_directory_and_an_unreadable_one_are_input_errors(tmp_path: Path) -> None:
    """With the reason of the operating system."""
    assert "No such file" in str(read_broken(tmp_path / "nothing")[1])
    assert "Is a directory" in str(read_broken(tmp_path)[1])
    assert "Not a directory" in str(read_broken(Path(__file__) / "x")[1])


def test_a_file_that_fails_while_it_is_read_is_an_input_error(
    put: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines before the failure are given."""

    class Failing(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().read1(size)

    path = put(b"")
    monkeypatch.setattr(Path, "open", lambda *_: Failing(NDJSON + b'{"half'))
    events, error = read_broken(path)
    assert events == EVENTS
    assert "Input/output error, after 25 events" in str(error)


@pytest.mark.parametrize("argument", [None, "-"])
@pytest.mark.parametrize("pack", [PACKED["plain"], PACKED["gzip"], PACKED["zstd"]], ids=["plain", "gzip", "zstd"])
def test_standard_input_is_an_archive_too(pack: Callable[[bytes], bytes], argument: str | None) -> None:
    """Through a real pipe, packed or not."""
    program = (
        "import sys; from pathlib import Path; from shipper.fetch.archive import read_archive\n"
        f"path = {argument!r} and Path({argument!r})\n"
        "for page in read_archive(path): sys.stdout.buffer.write(b'\\n'.join(page.events))"
    )
    done = subprocess.run([sys.executable, "-c", program], input=pack(NDJSON), capture_output=True, check=True)
    assert done.stdout == b"\n".join(EVENTS)


def test_a_pipe_is_read_as_it_fills_one_byte_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first four bytes need not come together."""
    reading, writing = os.pipe()
    data = zstandard.compress(NDJSON)

    def feed() -> None:
        with os.fdopen(writing, "wb", buffering=0) as pipe:
            for at in range(len(data)):
                pipe.write(data[at : at + 1])

    monkeypatch.setattr("shipper.fetch.decompress._READ", 1)
    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(reading, "rb") as stream:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
        assert read(None) == EVENTS
    feeder.join()


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_a_small_file_that_unpacks_to_a_large_one_takes_little_memory(put: Callable[[bytes], Path], name: str) -> None:
    """100 MB of blank lines out of a few kilobytes."""
    path = put(PACKED[name]((b" " * 999 + b"\n") * 100_000))
    tracemalloc.start()
    try:
        assert read(path) == ()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 48 * 1024 * 1024
