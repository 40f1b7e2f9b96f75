"""At the end of a session nothing that the tests printed, logged or left behind may hold one of their keys.

Every key in the tests is a `canary`: it holds one marker, which is written out nowhere in the repository. Scanned are

- what tests printed and logged, their names, and the tracebacks of those that failed;
- what the processes that they started said (`communicate`), and what they read of their own output (`capfd`);
- every file under the session's temporary folder, ClickHouse's compressed columns unpacked;
- every file of the repository, that of its tools aside.

The key of the simulated organization is public, and `shipper simulate` prints it as a line to paste; anywhere else in
output and files it counts as a key. A test that needs a key file calls it `admin-key`.

Tables of the server are dropped after each test: `tables_that_leak` is asked before.
"""

from __future__ import annotations

import asyncio.subprocess
import base64
import functools
import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lz4.block  # type: ignore[import-untyped]
import pytest
import zstandard

if TYPE_CHECKING:
    from shipper.load.clickhouse import Database

MARKER = "-".join(("canary", "5e1f7a3c9b"))

# The one name under which a file may hold a key.
KEY_FILE = "admin-key"

# The simulated organization's key, with what stands before it where it may be.
_SIMULATED = b"sk-admin-simulated"
_PASTED = b"OPENAI_ADMIN_KEY="

_TOOLS = {".git", ".venv", ".cache", ".mypy_cache", ".pytest_cache", ".ruff_cache", "node_modules"}

# ClickHouse's frame: a checksum, then a byte for the method and two sizes of which the first counts these nine bytes.
_CHECKSUM, _HEADER = 16, 9
_LARGEST_UNPACKED = 64 * 1024 * 1024
_METHODS: dict[int, Callable[[bytes, int], bytes]] = {
    0x02: lambda data, _: data,
    0x82: lambda data, size: lz4.block.decompress(data, uncompressed_size=size),
    0x90: lambda data, size: zstandard.ZstdDecompressor().decompress(data, max_output_size=size),
}


def canary(name: str) -> str:
    """An admin key for tests, recognised wherever it turns up. The same for the same name."""
    return f"sk-admin-{name}-{MARKER}"


def _forms(marker: bytes) -> tuple[bytes, ...]:
    """The marker as it is, in hexadecimal, and in base64 wherever in the text it begins."""
    encoded = [base64.b64encode(b"\0" * shift + marker) for shift in range(3)]
    inner = [text[first:last] for text, (first, last) in zip(encoded, [(0, -4), (2, -4), (3, -4)], strict=True)]
    return (marker, marker.hex().encode(), *inner)


_FORMS = _forms(MARKER.encode())


def holds_a_key(content: bytes | mmap.mmap, *, source: bool = False) -> bool:
    """Whether bytes hold a canary, or (unless they are source) the simulated key where it has no place."""
    if any(content.find(form) >= 0 for form in _FORMS):
        return True
    at = -1
    while not source and (at := content.find(_SIMULATED, at + 1)) >= 0:
        if content[max(at - len(_PASTED), 0) : at] != _PASTED:
            return True
    return False


class Scan:
    """What was found so far: places, never the key."""

    def __init__(self) -> None:
        self.found: dict[str, None] = {}

    def text(self, where: str, *texts: object) -> None:
        for text in texts:
            content = text if isinstance(text, bytes) else str(text or "").encode(errors="replace")
            if holds_a_key(content):
                self.found[where] = None

    def folder(self, root: Path, *, source: bool = False) -> None:
        for path in _files(root, skip=_TOOLS if source else set()):
            # A test installs the product: its source names the simulated key.
            is_source = source or path.suffix in {".py", ".pyc"}
            if path.name != KEY_FILE and _file_holds_a_key(path, source=is_source):
                self.found[f"file {path}"] = None


def _files(root: Path, skip: set[str]) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in skip]
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _file_holds_a_key(path: Path, *, source: bool) -> bool:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if holds_a_key(content, source=source):
                    return True
                return path.suffix == ".bin" and any(map(holds_a_key, _unpacked(content)))
    except (OSError, ValueError):
        # Gone in between, not for us to read, or no real file.
        return False


def _unpacked(content: mmap.mmap) -> Iterator[bytes]:
    """The frames of a ClickHouse column file; ends at the first thing that is none."""
    at = _CHECKSUM
    while at + _HEADER <= len(content):
        method = _METHODS.get(content[at])
        packed = int.from_bytes(content[at + 1 : at + 5], "little")
        size = int.from_bytes(content[at + 5 : at + 9], "little")
        if method is None or not _HEADER <= packed <= len(content) - at or size > _LARGEST_UNPACKED:
            return
        try:
            yield method(content[at + _HEADER : at + packed], size)
        except (lz4.block.LZ4BlockError, zstandard.ZstdError):
            return
        at += packed + _CHECKSUM


async def tables_that_leak(server: Database, name: str) -> list[str]:
    """The tables of the database `name` on the server with a row that holds a key."""
    tables = await server.query(
        "SELECT name FROM system.tables WHERE database = {database:String} AND total_rows > 0", {"database": name}
    )
    condition = f"position(row, '{MARKER}') > 0 OR position(row, '{_SIMULATED.decode()}') > 0"
    parts = [
        f"SELECT '{table}' AS name FROM (SELECT formatRow('RowBinary', *) AS row FROM `{name}`.`{table}`)"
        f" WHERE {condition}"
        for (table,) in tables
    ]
    found = await server.query(f"SELECT DISTINCT name FROM ({' UNION ALL '.join(parts)})") if parts else []
    return [table for (table,) in found]


# ---- the plugin ----

_scan = Scan()
_restore: list[Callable[[], None]] = []


def report_leak(where: str) -> None:
    """Fail the session for what a fixture found by itself."""
    _scan.found[where] = None


def _here(what: str) -> str:
    test = os.environ.get("PYTEST_CURRENT_TEST", "outside of any test").rpartition(" (")[0]
    return f"{what} of {test}"


def _listen(owner: type, name: str, what: str) -> None:
    """Look at what a method that returns output returns."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def plain(*arguments: Any, **named: Any) -> Any:
        result = method(*arguments, **named)
        _scan.text(_here(what), *result)
        return result

    @functools.wraps(method)
    async def coroutine(*arguments: Any, **named: Any) -> Any:
        result = await method(*arguments, **named)
        _scan.text(_here(what), *result)
        return result

    setattr(owner, name, coroutine if asyncio.iscoroutinefunction(method) else plain)
    _restore.append(lambda: setattr(owner, name, method))


def pytest_configure() -> None:
    _listen(subprocess.Popen, "communicate", "output of a process")
    _listen(asyncio.subprocess.Process, "communicate", "output of a process")
    _listen(pytest.CaptureFixture, "readouterr", "output")


def pytest_unconfigure() -> None:
    while _restore:
        _restore.pop()()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # A parameter that is a key becomes a part of the name, which reports and caches show.
    _scan.text(f"name of a test in {report.location[0]}", report.nodeid)
    for name, content in report.sections:
        _scan.text(f"{name} of {report.nodeid}", content)
    if report.longrepr is not None:
        _scan.text(f"traceback of {report.nodeid}", report.longreprtext)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What another process of the session has found."""
    _scan.found.update(dict.fromkeys(getattr(node, "workeroutput", {}).get("leaks", ())))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        # One of several processes that share the tests out. The first of them scans the files, for all.
        session.config.workeroutput["leaks"] = list(_scan.found)
        return
    factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
    _scan.folder(factory.getbasetemp())
    _scan.folder(session.config.rootpath, source=True)
    if _scan.found and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _scan.found:
        terminalreporter.section("keys leaked", red=True)
        for where in _scan.found:
            terminalreporter.line(where)
        terminalreporter.line(f"(tests/secrets_scan.py says what is looked for; a key file is called {KEY_FILE})")
