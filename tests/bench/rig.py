"""The parts that every measurement stands on: the ClickHouse server, the API, and the check of what arrived."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench import corpus
from tests.bench.contenders import SHIPPER, Contender, Place, Task, shipper_environment
from tests.bench.files import CACHE, ROOT
from tests.bench.results import Cost
from tests.clickhouse_server import Server, free_port

_MEASURE = [sys.executable, "-I", "-S", str(Path(__file__).parent / "measure.py")]


class Void(Exception):  # noqa: N818 - says what becomes of the figure
    """A figure that does not count: the contender failed, or did not ship exactly the events."""


class Api:
    """The fast API in a process of its own, with the events of one file."""

    def __init__(self, archive: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.api", str(archive)], stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Void(f"the API did not start: exit code {self._process.wait()}")
        self.base_url = f"http://127.0.0.1:{int(line)}/v1"

    def set_latency(self, seconds: float) -> None:
        self._order(f"latency?seconds={seconds}")

    def asked(self) -> list[float]:
        """When pages were asked for since the last call."""
        moments: list[float] = json.loads(self._order("requests"))
        return moments

    def _order(self, order: str) -> bytes:
        with urllib.request.urlopen(f"{self.base_url.removesuffix('/v1')}/bench/{order}", timeout=60) as answer:  # noqa: S310
            body: bytes = answer.read()
            return body

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class Rig:
    """Use it with `with`. Servers start when they are first needed and live as long as it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._apis: dict[Path, Api] = {}
        self._truths: dict[Path, tuple[int, ...]] = {}
        self.native_port = free_port()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @cached_property
    def clickhouse(self) -> str:
        """The URL of the server."""
        CACHE.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(dir=CACHE, prefix="server-"))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        server = self._stack.enter_context(Server(directory, "--tcp_port", str(self.native_port)))
        urllib.request.urlopen(server.url, data=b"SYSTEM START LISTEN TCP", timeout=60).close()  # noqa: S310
        return server.url

    def api(self, archive: Path) -> Api:
        """The API that serves these events."""
        if archive not in self._apis:
            self._apis[archive] = self._stack.enter_context(Api(archive))
        return self._apis[archive]

    def sql(self, query: str, data: Any = None) -> str:
        """One statement, its answer as text. `data` (bytes, or an open file) follows the statement."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.clickhouse}/?query={urllib.request.quote(query)}",  # type: ignore[attr-defined]
            data=b"" if data is None else data,
            headers={} if data is None or isinstance(data, bytes) else {"Content-Length": str(_size(data))},
        )
        with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310
            text: str = answer.read().decode().strip()
            return text

    @contextmanager
    def database(self) -> Iterator[str]:
        """The name of an empty database."""
        name = f"bench_{secrets.token_hex(4)}"
        self.sql(f"CREATE DATABASE {name}")
        try:
            yield name
        finally:
            self.sql(f"DROP DATABASE {name} SYNC")

    def measure(self, contender: Contender, task: Task) -> Cost:
        """Let the contender do the task in an empty database. Raises Void unless exactly the events are there."""
        archive = corpus.archive(task.events)
        api = self.api(archive)
        truth = self._truth(archive)
        with self.database() as database:
            place = Place(api.base_url, archive, self.clickhouse, self.native_port, database)
            if contender.schema:
                self.apply_schema(task, place)
            api.set_latency(task.latency)
            api.asked()
            cost = run(contender.command(task, place), contender.environment(task, place), asked=api)
            found = self._fingerprint(f"{database}.{contender.table}", contender.id_column)
            if found != truth:
                raise Void(f"{contender.name}, {task.name}: expected (count, distinct, xor) {truth}, got {found}")
        if contender.timed_inside:
            inside = json.loads(cost.output.splitlines()[-1])
            return Cost(inside["wall"], inside["cpu"], cost.rss, cost.asked, cost.output)
        return cost

    def apply_schema(self, task: Task, place: Place) -> None:
        run([SHIPPER, "schema", "apply"], shipper_environment(task, place))

    def _truth(self, archive: Path) -> tuple[int, ...]:
        """What a table with exactly the events of the file has: rows, distinct ids, and the XOR of their hashes."""
        if archive not in self._truths:
            with self.database() as database, archive.open("rb") as lines:
                table = f"{database}.truth"
                self.sql(f"CREATE TABLE {table} (id String) ENGINE = Memory")
                select = "SELECT JSONExtractString(line, 'id') FROM input('line String') FORMAT LineAsString"
                self.sql(f"INSERT INTO {table} {select}", lines)
                self._truths[archive] = self._fingerprint(table, "id")
        return self._truths[archive]

    def _fingerprint(self, table: str, column: str) -> tuple[int, ...]:
        answer = self.sql(f"SELECT count(), uniqExact({column}), groupBitXor(sipHash64({column})) FROM {table}")
        return tuple(map(int, answer.split("\t")))


def run(command: Sequence[str], environment: Mapping[str, str], *, asked: Api | None = None) -> Cost:
    """Run a command to its end. Raises Void when it fails."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out = Path(folder) / "cost.json"
        ended = subprocess.run(
            [*_MEASURE, str(out), *command], env=dict(environment), capture_output=True, cwd=folder, check=False
        )
        cost = json.loads(out.read_bytes()) if out.exists() else {"code": ended.returncode}
    if cost["code"]:
        said = (ended.stdout + ended.stderr).decode(errors="replace")[-3000:]
        raise Void(f"{' '.join(command[:3])}: exit code {cost['code']}\n{said}")
    moments = asked.asked() if asked else ()
    return Cost(cost["wall"], cost["cpu"], cost["rss"], moments, ended.stdout.decode(errors="replace"))


def _size(file: Any) -> int:
    return os.fstat(file.fileno()).st_size
