"""The embedded engine's directory: made, refused, shared with other processes in turn."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shipper.errors import ConfigError, DatabaseBusy, DatabaseError
from shipper.load import embedded
from shipper.load.clickhouse import connect
from shipper.load.rowbinary import encode
from tests.conftest import database_settings

# A process that opens the directory, says so, and lets go when its standard input ends.
HOLD = """
import clickhouse_connect, sys
client = clickhouse_connect.get_client(interface="chdb", path=sys.argv[1])
print("open", flush=True)
sys.stdin.read()
client.close()
"""


def holder(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def release(process: subprocess.Popen[str]) -> None:
    process.communicate()


async def test_directories_are_made(tmp_path: Path) -> None:
    """Missing parents too; the data is there for the next process."""
    url = f"chdb:{tmp_path}/a/b/data"
    database = await connect(database_settings(url))
    assert database.address == url
    await database.command("CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a")
    await database.close()
    assert (tmp_path / "a/b/data").is_dir()
    again = await connect(database_settings(url))
    assert await again.query("SELECT count() FROM t") == [(0,)]
    await again.close()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("chdb:data", "{cwd}/data"),
        ("chdb:./data", "{cwd}/data"),
        ("chdb:/abs/data", "/abs/data"),
        ("chdb:///abs/data", "/abs/data"),
        ("chdb:~/data", "{home}/data"),
    ],
)
def test_the_directory_of_a_url(url: str, path: str) -> None:
    """Relative to the working directory, absolute with one or three slashes, or in the home directory."""
    assert str(embedded.directory_of(url)) == path.format(cwd=Path.cwd(), home=Path.home())


@pytest.mark.parametrize("url", ["chdb:", "chdb://", "chdb:/", "chdb::memory:", "chdb:data?readonly=1"])
def test_a_url_without_a_directory_is_refused(url: str) -> None:
    """Nothing, the root, memory, or options of the engine are not a place to keep data."""
    with pytest.raises(ConfigError, match="names no directory"):
        embedded.directory_of(url)


async def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """The message names the path."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=f"cannot use {path} as a directory"):
            await connect(database_settings(f"chdb:{path}"))


async def test_a_directory_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the engine opens it."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="is not writable"):
        await connect(database_settings(f"chdb:{tmp_path}"))


async def test_without_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare installation says what to install; no directory is left behind."""
    monkeypatch.setitem(sys.modules, "chdb", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        await connect(database_settings(f"chdb:{tmp_path}/data"))
    assert "pip install 'openai-audit-shipper[embedded]'" in caught.value.hint
    assert not (tmp_path / "data").exists()


async def test_a_directory_in_use_is_waited_for_and_then_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The wait is as long as was asked for, the error says which directory and which process, the engine is silent."""
    process = holder(tmp_path)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    try:
        with pytest.raises(DatabaseBusy) as caught:
            await connect(database_settings(f"chdb:{tmp_path}"), busy_timeout=1.0, sleep=sleep)
    finally:
        release(process)
    assert str(caught.value) == f"{tmp_path} is in use by another process (pid {process.pid})"
    assert (int(caught.value.exit_code), caught.value.transient) == (75, True)
    assert sum(pauses) == pytest.approx(1.0)
    assert capfd.readouterr() == ("", "")


async def test_a_directory_let_go_in_time_is_opened(tmp_path: Path) -> None:
    """The other process ends while this one waits."""
    process = holder(tmp_path)

    async def sleep(_: float) -> None:
        release(process)

    database = await connect(database_settings(f"chdb:{tmp_path}"), sleep=sleep)
    assert await database.query("SELECT 1") == [(1,)]
    await database.close()


async def test_a_race_for_the_directory_is_busy_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process opens it between the look and the opening: the engine's error becomes the same answer."""
    process = holder(tmp_path)
    looks = iter([None])
    look = embedded._holder
    monkeypatch.setattr(embedded, "_holder", lambda directory: next(looks, look(directory)))
    try:
        with pytest.raises(DatabaseBusy, match=f"pid {process.pid}"):
            await connect(database_settings(f"chdb:{tmp_path}"), busy_timeout=0)
    finally:
        release(process)


async def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """The lock goes with the process; the file it leaves behind keeps nobody out."""
    process = holder(tmp_path)
    process.kill()
    process.communicate()
    assert (tmp_path / "status").exists()
    database = await connect(database_settings(f"chdb:{tmp_path}"), busy_timeout=0)
    assert await database.query("SELECT 1") == [(1,)]
    await database.close()


async def test_one_process_may_open_it_twice(tmp_path: Path) -> None:
    """The process's own lock is no obstacle."""
    first, second = [await connect(database_settings(f"chdb:{tmp_path}"), busy_timeout=0) for _ in range(2)]
    await first.command("CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a")
    assert await second.query("SELECT count() FROM t") == [(0,)]
    await first.close()
    await second.close()


async def test_two_directories_at_once_are_an_error_of_ours(tmp_path: Path) -> None:
    """The engine serves one directory per process; the second is refused with our error, the first goes on."""
    first = await connect(database_settings(f"chdb:{tmp_path}/one"))
    with pytest.raises(DatabaseError):
        await connect(database_settings(f"chdb:{tmp_path}/two"), busy_timeout=0)
    assert await first.query("SELECT 1") == [(1,)]
    await first.close()


async def test_a_disk_without_room_to_spare_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine would acknowledge what it cannot write. Reading goes on; with room again writing does too."""
    url = f"chdb:{tmp_path / 'data'}"
    database = await connect(database_settings(url))
    await database.command("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda _: usage._replace(free=63 * 1024 * 1024))
        for call in (
            database.command("CREATE TABLE u (a Int64) ENGINE = MergeTree ORDER BY a"),
            database.insert("t", ["a"], encode(["a"], ["UInt64"], [[1]]), token="1"),
        ):
            with pytest.raises(DatabaseError, match="63 MiB are free on its disk, expected at least 64") as caught:
                await call
            assert type(caught.value) is DatabaseError
            assert caught.value.hint.startswith("Make room")
        assert await database.query("SELECT a FROM t") == []
    await database.insert("t", ["a"], encode(["a"], ["UInt64"], [[1]]), token="1")
    assert await database.query("SELECT a FROM t") == [(1,)]
    assert await database.query("SHOW TABLES") == [("t",)]
    await database.close()


async def test_a_directory_that_the_engine_cannot_read_is_an_error_with_a_hint(tmp_path: Path) -> None:
    """A table's definition that was cut off, as a full disk leaves it."""
    url = f"chdb:{tmp_path / 'data'}"
    database = await connect(database_settings(url))
    await database.command("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    await database.close()
    (definition,) = (tmp_path / "data").rglob("t.sql")
    definition.resolve().write_text("")
    with pytest.raises(DatabaseError) as caught:
        await connect(database_settings(url))
    assert "does not start on what is in this directory" in caught.value.hint


async def test_an_answer_that_broke_off_is_no_part_of_the_next(embedded_url: str) -> None:
    """The engine keeps what a failed SELECT had found; the next question gets its own answer all the same."""
    database = await connect(database_settings(embedded_url))
    breaks_off = (
        "SELECT toString(number), throwIf(number = 5) FROM numbers(10) SETTINGS max_block_size = 1, max_threads = 1"
    )
    for _ in range(20):
        with pytest.raises(DatabaseError):
            await database.query(breaks_off)
        assert await database.query("SELECT 'fresh'") == [("fresh",)]
        with pytest.raises(DatabaseError):
            await database.present(breaks_off, None, {"1"})
        assert await database.present("SELECT 'fresh'", None, {"fresh", "1"}) == {"fresh"}
        with pytest.raises(DatabaseError):
            await database.query_table(breaks_off)
        assert (await database.query_table("SELECT 'fresh'"))[1] == [("fresh",)]
    await database.close()
