"""Plain, gzip and zstd bytes as one stream of plain bytes, told apart by how they begin, not by a file's name."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

import zstandard

_READ = 256 * 1024
# What is fed at a time, which bounds what comes out at once: at most 1,032 times as much from gzip, and one block of
# 128 KiB for every four bytes of zstd.
_STEP = 1024

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
# A zstd file may begin with a frame to be skipped: 0x184D2A50 to 0x184D2A5F, little-endian.
_SKIPPABLE = b"\x2a\x4d\x18"


class DamagedError(ValueError):
    """The compressed data ends too early or is not what it says. A signal inside the fetch stage."""


class _Frame(Protocol):
    """One gzip member or zstd frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def decompress(stream: BinaryIO) -> Iterator[bytes]:
    """The plain bytes of `stream`, in chunks.

    Raises DamagedError for compressed data that is cut or broken, after all that came before that place was given.
    """
    chunks = _chunks(stream)
    first = next(chunks, b"")
    while len(first) < 4 and (more := next(chunks, b"")):
        first += more
    chunks = itertools.chain((first,), chunks)
    if first.startswith(_GZIP):
        return _frames(chunks, lambda: zlib.decompressobj(wbits=31), "gzip")
    if first.startswith(_ZSTD) or (first[1:4] == _SKIPPABLE and first[0] >> 4 == 5):
        return _frames(chunks, lambda: zstandard.ZstdDecompressor().decompressobj(), "zstd")
    return chunks


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    # read1 gives what a pipe holds by now; read would wait for the whole amount.
    read = getattr(stream, "read1", stream.read)
    while chunk := read(_READ):
        yield chunk


def _frames(chunks: Iterator[bytes], new_frame: Callable[[], _Frame], name: str) -> Iterator[bytes]:
    """Both formats allow frames one after the other, as `cat a.gz b.gz` makes them."""
    frame: _Frame | None = None
    pieces = (chunk[at : at + _STEP] for chunk in chunks for at in range(0, len(chunk), _STEP))
    for piece in pieces:
        rest = piece
        while rest:
            if frame is None:
                # Zero bytes between and after frames are padding: gzip(1) accepts them too.
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                frame = new_frame()
            try:
                plain = frame.decompress(rest)
            except (zlib.error, zstandard.ZstdError):
                raise DamagedError(f"the {name} data is damaged") from None
            yield plain
            rest = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise DamagedError(f"the {name} data is cut")
