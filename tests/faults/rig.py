"""Real parts, wired together: the simulated API, a ClickHouse server or an embedded directory, a proxy before each, and
the shipper as a process that knows only the proxies."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from shipper.model import Lane
from shipper.simulator import Misbehaviour, Organization, Simulator
from tests.cli.conftest import KEY, SHIPPER, clean_environment
from tests.clickhouse_server import Server
from tests.faults import oracle
from tests.faults.oracle import Obligation, Verdict
from tests.faults.proxy import Proxy

# Short, so that the run after a killed one need not wait long for its lease to expire, and long enough for a machine
# that is busy: an answer may take a fifth of it.
_LEASE = {"SHIPPER_LEASE_TTL": "4s", "SHIPPER_LEASE_WAIT": "30s"}
_NOT_INSTALLED = ("numpy", "pandas", "pyarrow", "polars")

# More than the embedded engine wants to find free.
_DISK_MEGABYTES = 96

DAY = 86_400
DAYS = 3
# More than a page holds, in one second.
TIES = 130
# Longer than any run here takes, however slow the machine: a process that is still there hangs.
PATIENCE = 90.0


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process that ended has left. `log` are the lines of structured log on its standard error."""

    code: int
    out: str
    err: str

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    @property
    def hint(self) -> str:
        """The last hint on standard error; empty when there is none."""
        hints = [line for line in self.err.splitlines() if line.startswith("hint:")]
        return hints[-1].removeprefix("hint:").strip() if hints else ""


@dataclass(slots=True)
class Rig:
    """One organization, one database. `url` is what the shipper is given, `direct` the database without the proxy.

    `database` and `server` are None for the embedded engine, which has no connection to come between. `bare` is a
    PYTHONPATH that hides what only the embedded engine needs: the driver would load pandas for every process here.
    `disk` is a small disk that this rig has for itself, where this user may mount one.
    """

    simulator: Simulator
    api: Proxy
    since: int
    url: str
    direct: str
    database: Proxy | None = None
    server: Server | None = None
    bare: str = ""
    disk: Path | None = None
    visible: dict[str, int] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    restarting: asyncio.Lock = field(default_factory=asyncio.Lock)

    def misbehave(self, misbehaviour: Misbehaviour) -> None:
        """From now on the API behaves like this. The key works again."""
        api = self.simulator._api
        api.misbehaviour = misbehaviour
        api._authorized = 0

    def add_event(self, *, age: int = 2, event_type: str = "login.succeeded") -> str:
        """Let an event that happened `age` seconds ago become visible now."""
        now = time.time()
        event_id = self.simulator.add_event(event_type, effective_at=int(now) - age)
        self.visible[event_id] = int(now) + 1
        return event_id

    def obligations(self) -> dict[str, Obligation]:
        return {
            event_id: Obligation(str(lane), at, raw)
            for lane in (Lane.ORGANIZATION, Lane.TENANT)
            for event_id, at, raw in self.simulator.events(lane)
        }

    def environment(self, **more: str) -> dict[str, str]:
        lookback = int(time.time()) - self.since + 60
        return {
            **clean_environment(),
            "OPENAI_ADMIN_KEY": KEY,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.api.port}/v1",
            "SHIPPER_CLICKHOUSE_URL": self.url,
            "SHIPPER_REQUESTS_PER_SECOND": "100",
            "SHIPPER_LOOKBACK": f"{lookback}s",
            "SHIPPER_WINDOW": "12h",
            "SHIPPER_RETRIES": "3",
            "SHIPPER_RETRY_CEILING": "0s",
            **_LEASE,
            **({"PYTHONPATH": self.bare} if self.bare else {}),
            **self.settings,
            **more,
        }

    async def start(
        self, *arguments: str, file_limit: int | None = None, **environment: str
    ) -> asyncio.subprocess.Process:
        """Start the shipper. `file_limit` is the size in bytes that no file of its may outgrow."""

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit or 0, file_limit or 0))

        process = await asyncio.create_subprocess_exec(
            SHIPPER,
            *arguments,
            env=self.environment(**environment),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=None if file_limit is None else limit,
        )
        self.processes.append(process)
        return process

    async def run(self, *arguments: str, file_limit: int | None = None, **environment: str) -> Ended:
        """Run the shipper to its end."""
        return await ended(await self.start(*arguments, file_limit=file_limit, **environment))

    async def verdict(self, *, complete: bool = True) -> Verdict:
        table = await asyncio.to_thread(oracle.read, self.direct)
        return oracle.judge(self.obligations(), table, complete=complete, issued_later=self.visible)

    async def sql(self, statement: str) -> str:
        """Run a statement on the server, past the proxy."""
        return await asyncio.to_thread(_sql, self.direct, statement)

    async def signal(self, number: signal.Signals) -> None:
        """Send every running shipper a signal; wait for its end when nothing can survive it."""
        for process in self.processes:
            tell(process, number)
            if number == signal.SIGKILL:
                await process.wait()

    def fill_disk(self) -> None:
        """Leave no room on the disk."""
        assert self.disk is not None
        with (self.disk / "filler").open("wb") as file, suppress(OSError):
            while True:
                file.write(bytes(1 << 20))

    def empty_disk(self) -> None:
        if self.disk is not None:
            (self.disk / "filler").unlink(missing_ok=True)

    async def kill_and_restart(self) -> None:
        """SIGKILL the ClickHouse server and start it again on its data and its port."""
        assert self.server is not None
        async with self.restarting:
            await asyncio.to_thread(self.server.kill)
            await asyncio.to_thread(self.server.start)

    async def restart_at_once(self) -> None:
        """The same, and nothing here moves meanwhile: whatever the shipper sends next finds the server up again."""
        assert self.server is not None
        self.server.kill()
        self.server.start()

    async def heal(self) -> None:
        """Nothing is spoilt from now on, and a server that is on its way up is there."""
        self.misbehave(Misbehaviour())
        self.api.heal()
        self.empty_disk()
        if self.database is not None:
            self.database.heal()
        if self.server is not None:
            self.server.wake()
            async with self.restarting:
                pass

    async def ship_to_the_end(self) -> Ended:
        """Heal everything and let `watch` work until a pass is done; then let one more event happen, and wait for the
        pass that reads it. What failed before must not keep it from either."""
        await self.heal()
        process = await self.start("watch", "--interval", "1s", "--no-detect", "--json")
        assert process.stderr is not None
        log = asyncio.create_task(process.stderr.read())
        try:
            async with asyncio.timeout(PATIENCE):
                await _whole_pass(process)
                self.add_event()
                added = time.time()
                while (await _whole_pass(process))["started"] <= added:
                    pass
                tell(process, signal.SIGTERM)
                result = Ended(await process.wait(), "", (await log).decode())
        except (TimeoutError, EOFError):
            tell(process, signal.SIGKILL)
            await process.wait()
            pytest.fail(f"does not recover: {(await log).decode()[-3000:]}")
        assert result.code == 0, result.err
        return result


async def _whole_pass(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The report of the next pass that came to its end in every lane. EOFError when the process ends instead."""
    assert process.stdout is not None
    while True:
        line = await process.stdout.readline()
        if not line:
            raise EOFError
        report: dict[str, Any] = json.loads(line)
        if report["lanes"] and all(lane["status"] == "ok" for lane in report["lanes"]):
            return report


def tell(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Send a signal, unless the process has ended.

    Past asyncio: its own way looks for the end of the process first, and takes it from the thread that waits for it.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def ended(process: asyncio.subprocess.Process) -> Ended:
    """Wait for the end of a process. One that does not end in time is killed, and TimeoutError raised."""
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    except TimeoutError:
        tell(process, signal.SIGKILL)
        await process.wait()
        raise
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def midnight() -> int:
    now = int(time.time())
    return now - now % DAY


def build_organization(seed: int, anchor: int) -> Organization:
    """A few hundred events of the days before `anchor`, Unix seconds. The same arguments give the same bytes."""
    return Organization.build(seed=seed, now=anchor, days=DAYS, events_per_day=40)


@asynccontextmanager
async def open_rig(
    directory: Path, server: Server | None, *, seed: int = 1, anchor: int | None = None, disk: bool = False
) -> AsyncIterator[Rig]:
    """A rig over an empty database of the server, or over an empty embedded one in `directory`; with `disk` on a small
    disk of its own, if this user may mount one."""
    anchor = midnight() if anchor is None else anchor
    simulator = Simulator(build_organization(seed, anchor), admin_key=KEY)
    for _ in range(TIES):
        simulator.add_event("login.succeeded", effective_at=anchor - DAY)
    name = f"faults_{secrets.token_hex(6)}"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(simulator)
        api = await stack.enter_async_context(Proxy(_port(simulator.base_url)))
        since = anchor - DAYS * DAY
        if server is None:
            mounted = stack.enter_context(small_disk(directory / f"{name}.disk")) if disk else None
            data = (mounted or directory) / name
            rig = Rig(simulator, api, since, f"chdb:{data}", f"chdb:{data}")
            # Calls wait for one another there, and the lease of a process that is gone holds up nobody.
            rig.settings["SHIPPER_LEASE_TTL"] = "1m"
            rig.disk = mounted
            stack.callback(shutil.rmtree, data, ignore_errors=True)
        else:
            database = await stack.enter_async_context(Proxy(server.port))
            direct = f"{server.url}/{name}"
            url = f"http://127.0.0.1:{database.port}/{name}"
            rig = Rig(simulator, api, since, url, direct, database, server, _bare(directory))
            await asyncio.to_thread(_sql, server.url, f"CREATE DATABASE {name}")
            stack.push_async_callback(asyncio.to_thread, _sql, server.url, f"DROP DATABASE {name} SYNC")
        stack.push_async_callback(rig.signal, signal.SIGKILL)
        yield rig


@contextmanager
def small_disk(directory: Path) -> Iterator[Path | None]:
    """A file system in memory, mounted at `directory`; None where this user may not mount one."""
    directory.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={_DISK_MEGABYTES}m", "tmpfs"]
    mounted = False
    if os.geteuid() == 0 and sys.platform == "linux":
        mounted = not subprocess.run(["mount", *options, directory], capture_output=True, check=False).returncode
    try:
        yield directory if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", directory], check=True)
        directory.rmdir()


def _bare(directory: Path) -> str:
    folder = directory / "bare"
    folder.mkdir(exist_ok=True)
    for name in _NOT_INSTALLED:
        (folder / f"{name}.py").write_text("raise ImportError('hidden from this process')\n")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.pathsep.join(paths)


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])


def _sql(url: str, statement: str) -> str:
    base, _, database = url.removeprefix("http://").partition("/")
    with urllib.request.urlopen(
        f"http://{base}/?database={database or 'default'}", data=statement.encode(), timeout=60
    ) as answer:
        text: str = answer.read().decode()
        return text.strip()
