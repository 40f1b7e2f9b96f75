"""The command as a process: signals, a killed backfill, and that nobody else ever sees the key."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from shipper.load import schema
from shipper.load.clickhouse import connect
from shipper.load.ledger import Ledger
from shipper.load.tables import TABLES
from shipper.model import Lane, Source, SourceID, Window, WorkspaceID
from shipper.simulator import Misbehaviour, Organization, Simulator
from tests.cli.conftest import KEY, SHIPPER, clean_environment
from tests.conftest import database_settings
from tests.organizations import NOW, shipped, truth


@pytest.fixture(scope="module")
def organization() -> Organization:
    return Organization.build(seed=5, now=NOW, days=30, events_per_day=20)


@pytest.fixture
async def slow(organization: Organization) -> AsyncIterator[Simulator]:
    """Answers late enough that a signal finds the shipper at work."""
    simulator = Simulator(organization, admin_key=KEY, misbehaviour=Misbehaviour(latency=0.02), clock=lambda: NOW)
    async with simulator as running:
        yield running


@pytest.fixture
async def quick(organization: Organization) -> AsyncIterator[Simulator]:
    async with Simulator(organization, admin_key=KEY, clock=lambda: NOW) as running:
        yield running


def environment(simulator: Simulator, url: str, **more: str) -> dict[str, str]:
    return {
        **clean_environment(),
        "OPENAI_ADMIN_KEY": KEY,
        "OPENAI_BASE_URL": simulator.base_url,
        "SHIPPER_CLICKHOUSE_URL": url,
        "SHIPPER_REQUESTS_PER_SECOND": "100",
        "SHIPPER_SOURCE_ID": "source-1",
        **more,
    }


async def start(env: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        SHIPPER, *arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def requests(simulator: Simulator, number: int) -> None:
    """Return when the simulator has been asked that often."""
    async with asyncio.timeout(60):
        while simulator.requests < number:  # noqa: ASYNC110 - the simulator is asked by another process
            await asyncio.sleep(0.005)


def backfill_arguments() -> list[str]:
    return ["backfill", "--since", "2025-10-22T12:00:00Z", "--until", "2025-11-21T12:00:00Z", "--json"]


async def table(url: str) -> dict[str, bytes]:
    database = await connect(database_settings(url))
    try:
        return await shipped(database)
    finally:
        await database.close()


async def covered(url: str) -> dict[Lane, list[Window]]:
    """What the ledger has; nothing before there are tables."""
    database = await connect(database_settings(url))
    try:
        if not await schema.applied(database):
            return {Lane.ORGANIZATION: [], Lane.TENANT: []}
        ledger = Ledger(database, Source(WorkspaceID("default"), SourceID("source-1")))
        return {lane: await ledger.covered(lane) for lane in (Lane.ORGANIZATION, Lane.TENANT)}
    finally:
        await database.close()


def command_line(pid: int) -> bytes:
    """What `ps` shows of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def files_under(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("asked", [10, 40])
async def test_a_backfill_killed_half_way_ends_complete_when_started_again(
    database_url: str, slow: Simulator, quick: Simulator, asked: int
) -> None:
    """SIGKILL in the middle, then the same command: only the windows still missing are asked for, and in the end the
    table is the truth, each event once.
    """
    # On a server the next one waits for the lease of the dead one to end.
    settings = {"SHIPPER_BATCH_ROWS": "20", "SHIPPER_CONCURRENCY": "2", "SHIPPER_LEASE_TTL": "10s"}
    process = await start(environment(slow, database_url, **settings), *backfill_arguments())
    await requests(slow, asked)
    process.kill()
    await process.communicate()
    assert process.returncode == -signal.SIGKILL
    shipped_before = await covered(database_url)
    assert asked == 10 or shipped_before[Lane.ORGANIZATION]
    again = await start(environment(quick, database_url), *backfill_arguments())
    out, err = await again.communicate()
    assert again.returncode == 0, err.decode()
    assert all(lane["balanced"] for lane in json.loads(out)["lanes"])
    assert quick.log
    for _, query in quick.log:
        lane = Lane.TENANT if "tenant_only" in query else Lane.ORGANIZATION
        window = parse_qs(query)
        start_at, end_at = int(window["effective_at[gte]"][0]), int(window["effective_at[lt]"][0])
        assert not any(done.start < end_at and start_at < done.end for done in shipped_before[lane])
    assert await table(database_url) == truth(quick)


async def test_sigterm_ends_a_backfill_with_75_and_keeps_what_was_acknowledged(
    database_url: str, slow: Simulator, quick: Simulator
) -> None:
    process = await start(environment(slow, database_url, SHIPPER_BATCH_ROWS="20"), *backfill_arguments())
    await requests(slow, 30)
    process.terminate()
    out, err = await process.communicate()
    assert process.returncode == 75, err.decode()
    assert {lane["status"] for lane in json.loads(out)["lanes"]} == {"stopped"}
    assert b"stopped before the end" in err
    assert b"run it again for the rest" in err
    some = await table(database_url)
    assert 0 < len(some) < len(truth(slow))
    again = await start(environment(quick, database_url), *backfill_arguments())
    await again.communicate()
    assert again.returncode == 0
    assert await table(database_url) == truth(quick)


async def test_sigterm_ends_watch_cleanly(quick: Simulator, embedded_url: str) -> None:
    """After a whole pass and a look of the detections, waiting for the next: exit code 0."""
    env = environment(quick, embedded_url, SHIPPER_LOOKBACK="1d")
    process = await start(env, "watch", "--interval", "1h", "--json")
    assert process.stdout is not None
    async with asyncio.timeout(60):
        reports = [json.loads(await process.stdout.readline()) for _ in range(2)]
    assert [report["command"] for report in reports] == ["watch", "detect"]
    process.terminate()
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()


@pytest.mark.parametrize("command", [["run"], ["watch"], ["backfill", "--since", "1d"]], ids=" ".join)
async def test_a_server_that_never_answers_does_not_keep_a_process_from_ending(
    quick: Simulator, command: list[str]
) -> None:
    """It accepts the connection and says nothing; SIGTERM ends the command all the same."""
    connected = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, asyncio.timeout(60):
        process = await start(environment(quick, f"http://127.0.0.1:{port}/x"), *command)
        await connected.wait()
        process.terminate()
        _, err = await process.communicate()
    if command == ["watch"]:
        assert (process.returncode, err) == (0, b"")
    else:
        assert process.returncode == 75
        assert b"stopped before the end" in err


async def test_an_idle_standard_input_does_not_keep_replay_from_ending(embedded_url: str) -> None:
    """One event came and nothing more: SIGINT ends it with 75, and the event is in the table."""
    env = {**clean_environment(), "SHIPPER_CLICKHOUSE_URL": embedded_url, "SHIPPER_BATCH_AGE": "0s"}
    process = await asyncio.create_subprocess_exec(
        SHIPPER,
        "replay",
        "-",
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    line = b'{"id":"a1","type":"login.failed","effective_at":1753089116}\n'
    process.stdin.write(line * 100_000)
    async with asyncio.timeout(60):
        await process.stdin.drain()
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 75, err.decode()
    assert b"Fatal" not in err


async def test_a_directory_that_another_process_holds_is_75_and_named(quick: Simulator, tmp_path: Path) -> None:
    url = f"chdb:{tmp_path / 'held'}"
    holder = await connect(database_settings(url))
    try:
        process = await start(environment(quick, url), "run")
        _, err = await process.communicate()
    finally:
        await holder.close()
    assert process.returncode == 75
    assert str(tmp_path / "held").encode() in err
    assert str(os.getpid()).encode() in err


async def test_nobody_ever_sees_the_key(database_url: str, quick: Simulator, slow: Simulator, tmp_path: Path) -> None:
    """Not on standard output or error of any command, not in the process list, not in the table or its files."""
    refused = Simulator(quick.organization, admin_key="sk-admin-another", clock=lambda: NOW)
    seen: list[bytes] = []
    async with refused:
        for simulator, arguments in (
            (slow, backfill_arguments()),
            (quick, ["run", "--json"]),
            (quick, ["check"]),
            (quick, ["status"]),
            (quick, ["config", "show"]),
            (refused, ["run"]),
            (refused, ["check"]),
            (quick, ["query", "SELECT * FROM nowhere"]),
        ):
            env = environment(simulator, database_url, SHIPPER_LOG_LEVEL="debug", SHIPPER_RETRIES="1")
            process = await start(env, *arguments)
            if simulator is slow:
                await requests(slow, 10)
                seen.append(command_line(process.pid))
            seen += await process.communicate()
    database = await connect(database_settings(database_url))
    for table in TABLES:
        seen.append(await database.query_json(f"SELECT * FROM {table.name}"))
    await database.close()
    seen += files_under(tmp_path)
    assert len(seen) > 20
    assert not any(KEY.encode() in text for text in seen)


def test_events_of_the_organization_are_in_both_lanes(organization: Organization) -> None:
    """The tests above would prove little with an empty lane."""
    assert all(organization.lane(lane) for lane in (Lane.ORGANIZATION, Lane.TENANT))
