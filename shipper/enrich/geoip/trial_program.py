"""Reads every record of a database through the C reader, in a process whose death harms nobody.

    python -I -S trial_program.py FOLDER_OF_MAXMINDDB FD SECONDS

Exit code 0: every record can be read. 65: one cannot. 66: maxminddb has no C reader here. Anything else, a signal
included, is no answer. The tree is walked here, each node once, so that a damaged one takes no longer than a whole one;
each distinct record is read once, through an address that leads to it. A look-up is a walk down that tree and one of
those records, so no look-up can meet anything that was not tried. This runs as a program and imports nothing of the
package.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maxminddb.extension import Reader

SOUND = 0
DAMAGED = 65
NO_C_READER = 66

_ROOM = 256 << 20

# Where the bytes of the left and the right record are in a node, most significant first, by record size. The fourth
# byte of a 28-bit node holds the top half-bytes of both.
_LAYOUTS: dict[int, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    24: (6, (0, 1, 2), (3, 4, 5)),
    28: (7, (3, 0, 1, 2), (3, 4, 5, 6)),
    32: (8, (0, 1, 2, 3), (4, 5, 6, 7)),
}
_UPPER = bytes(byte >> 4 for byte in range(256))
_LOWER = bytes(byte & 15 for byte in range(256))


def read_tree(file: bytes | mmap.mmap, nodes: int, record_size: int) -> memoryview:
    """The records of the search tree, at the start of the file, as numbers, left and right by turns."""
    width, *sides = _LAYOUTS[record_size]
    numbers = bytearray(nodes * 8)
    for side, places in enumerate(sides):
        for rank, place in enumerate(reversed(places)):
            column = file[place : nodes * width : width]
            if record_size == 28 and place == 3:
                column = column.translate(_LOWER if side else _UPPER)
            at = rank if sys.byteorder == "little" else 3 - rank
            numbers[side * 4 + at :: 8] = column
    return memoryview(numbers).cast("I")


def addresses(records: memoryview, bits: int) -> Iterator[int]:
    """One address for each distinct record that any address leads to. Raises ValueError for a path without an end."""
    nodes = len(records) // 2
    visited = bytearray(nodes)
    found: set[int] = set()
    waiting = [(0, bits, 0)]
    while waiting:
        node, left, address = waiting.pop()
        if visited[node]:
            continue
        visited[node] = 1
        left -= 1
        for record in (records[2 * node], records[2 * node + 1]):
            if record < nodes:
                if not left:
                    raise ValueError("the search tree is deeper than an address is long")
                waiting.append((record, left, address))
            elif record > nodes and record not in found:
                found.add(record)
                yield address
            address |= 1 << left


def try_every_record(path: Path, reader: Reader) -> None:
    """Raises what the reader raises, if it comes back at all."""
    metadata = reader.metadata()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        records = read_tree(mapped, metadata.node_count, metadata.record_size)
    address_of, bits = (IPv6Address, 128) if metadata.ip_version == 6 else (IPv4Address, 32)
    for number in addresses(records, bits):
        if not isinstance(reader.get(address_of(number)), dict):
            raise TypeError("a record is a map")


def _restrain(seconds: int, size: int) -> None:
    """Bound the time and the memory of this process, and be the first to go where either is short."""
    signal.alarm(seconds)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_ROOM + 8 * size,) * 2)
    with suppress(OSError):
        os.nice(10)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def main(folder: str, fd: str, seconds: str) -> int:
    _restrain(int(seconds), os.fstat(int(fd)).st_size)
    sys.path.insert(0, folder)
    # Found only now. Not found is an answer; an extension that is there and does not load is a failure of another kind.
    import maxminddb  # noqa: PLC0415

    try:
        import maxminddb.extension  # noqa: PLC0415
    except ModuleNotFoundError:
        return NO_C_READER

    path = Path(f"/dev/fd/{fd}")
    try:
        try_every_record(path, maxminddb.extension.Reader(path, maxminddb.MODE_MMAP_EXT))
    except (
        maxminddb.InvalidDatabaseError,
        ValueError,
        TypeError,
        LookupError,
        OverflowError,
        SystemError,
        RecursionError,
        MemoryError,
    ):
        return DAMAGED
    return SOUND


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
