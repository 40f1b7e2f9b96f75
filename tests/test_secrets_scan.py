"""The scan for keys can fail: each way in which one may leak turns a session red, and what may hold one does not."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipper.load import schema
from shipper.load.clickhouse import Database
from tests.load.rows import delivery, give, row, writer
from tests.secrets_scan import MARKER, canary, holds_a_key, tables_that_leak

ROOT = Path(__file__).parent.parent

LEAKS = """
import asyncio, logging, subprocess, sys
import pytest
from shipper.load import schema
from shipper.load.clickhouse import connect
from tests.conftest import database_settings
from tests.load.rows import delivery, give, row, writer
from tests.secrets_scan import canary
KEY = canary("leak")

def test_printed():
    print("the key is", KEY)

def test_logged():
    logging.getLogger("x").warning("key %s", KEY)

@pytest.fixture
def careless():
    yield
    print(KEY, file=sys.stderr)

def test_printed_by_a_fixture(careless):
    pass

def test_traceback():
    raise ValueError(KEY)

@pytest.mark.xfail(strict=True, reason='its traceback is scanned')
def test_traceback_of_an_expected_failure():
    raise ValueError(KEY)

def test_captured(capfd):
    print(KEY)
    capfd.readouterr()

def test_process():
    subprocess.run([sys.executable, "-c", "import sys; print(sys.argv[1])", KEY], capture_output=True)

async def test_asyncio_process():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import sys; print(sys.argv[1], file=sys.stderr)", KEY,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    await process.communicate()

def test_file(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.bin").write_bytes(bytes(70_000) + KEY.encode())

async def test_embedded_database(tmp_path):
    database = await connect(database_settings(f"chdb:{tmp_path / 'data'}"))
    await schema.apply(database)
    batch = writer(database)
    give(batch, delivery(), [row(1, rawLog=(b"x" * 50_000) + KEY.encode())], [])
    await batch.flush()
    await database.close()

@pytest.mark.parametrize("key", [KEY])
def test_name(key):
    pass

def test_simulated_key():
    print("sk-admin-" + "simulated")

def test_repository(request):
    (request.config.rootpath / "left-behind").write_text(KEY)
"""

WITHOUT_LEAKS = """
import subprocess, sys
from tests.secrets_scan import canary
KEY = canary("kept")

def test_key_file(tmp_path):
    (tmp_path / "admin-key").write_text(KEY)

def test_pasted(capfd):
    print("  export OPENAI_ADMIN_KEY=sk-admin-" + "simulated")
    capfd.readouterr()
    print("OPENAI_ADMIN_KEY=sk-admin-" + "simulated")

def test_silent(tmp_path):
    environment = {"OPENAI_ADMIN_KEY": KEY}
    assert KEY not in repr(subprocess.run([sys.executable, "-c", ""], env=environment, capture_output=True).stdout)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "link").symlink_to("nowhere")
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A folder with a test session of its own, gone before ours is scanned."""
    folder = tmp_path / "project"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def run(project: Path, tests: str, *options: str) -> tuple[int, str]:
    """Exit code and output of a session with the scan as its plugin. What it prints is not ours."""
    (project / "test_it.py").write_text(tests)
    (project / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.secrets_scan", "-p", "no:cacheprovider"]
    command += ["--tb=no", "-r", "N", "--basetemp", str(project / "temp"), *options, str(project)]
    with (project / "output").open("wb+") as output:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        code = subprocess.call(command, cwd=project, stdout=output, stderr=output, env=environment)
        output.seek(0)
        return code, output.read().decode()


def test_every_way_out_is_watched(project: Path) -> None:
    """The session fails and names each place, never the key."""
    code, output = run(project, LEAKS)
    assert code == pytest.ExitCode.TESTS_FAILED, output
    section = output.partition("keys leaked")[2]
    named = {re.sub(r".*::|\d+$", "", line) for line in re.findall(r"^\S.* of test_it\.py::\S+", section, re.MULTILINE)}
    assert named == {
        "test_printed",
        "test_logged",
        "test_printed_by_a_fixture",
        "test_traceback",
        "test_traceback_of_an_expected_failure",
        "test_captured",
        "test_process",
        "test_asyncio_process",
        "test_simulated_key",
    }
    files = {Path(line) for line in re.findall(r"^file (.+)$", section, re.MULTILINE)}
    assert project / "temp" / "test_file0" / "deep" / "x.bin" in files
    assert project / "left-behind" in files
    columns = {path for path in files if "test_embedded_database0" in path.parts}
    assert {path.suffix for path in columns} == {".bin"}
    assert "name of a test in test_it.py" in section
    assert MARKER not in section


@pytest.mark.parametrize("leak", ["print(KEY)", "tmp_path.joinpath('x').write_text(KEY)"])
def test_a_session_shared_out_among_processes_fails_for_a_leak_in_any(project: Path, leak: str) -> None:
    """What a worker saw, and what it left behind, is told by the session as a whole."""
    code, output = run(project, WITHOUT_LEAKS + f"\ndef test_leak(tmp_path):\n    {leak}\n", "-n", "2")
    assert (code, "keys leaked" in output) == (pytest.ExitCode.TESTS_FAILED, True), output
    code, output = run(project, WITHOUT_LEAKS, "-n", "2")
    assert (code, "keys leaked" in output) == (pytest.ExitCode.OK, False), output


def test_a_session_of_tests_that_pass_fails_for_one_leak(project: Path) -> None:
    """A leak is enough: every test is green, and the exit code is not."""
    code, output = run(project, WITHOUT_LEAKS + "\ndef test_leak():\n    print(KEY)\n")
    assert (code, "4 passed" in output) == (pytest.ExitCode.TESTS_FAILED, True), output
    assert "Captured stdout call of test_it.py::test_leak" in output


def test_what_may_hold_a_key(project: Path) -> None:
    """A key file by its name, and the line that `shipper simulate` prints."""
    code, output = run(project, WITHOUT_LEAKS)
    assert (code, "3 passed" in output, "keys leaked" in output) == (0, True, False), output


@pytest.mark.parametrize("before", ["", "x", "xy", "xyz"])
def test_a_key_is_found_in_any_dress(before: str) -> None:
    """As it is, in hexadecimal, in base64 at each offset."""
    text = (before + canary("x") + before).encode()
    for content in (text, text.hex().encode(), base64.b64encode(text), base64.urlsafe_b64encode(text)):
        assert holds_a_key(content)
        assert not holds_a_key(content.replace(content[-30:], b""))


async def test_a_table_that_holds_a_key_is_named(bare_database: Database) -> None:
    """In any column; the table is emptied again before the scan looks at what this test leaves."""
    await schema.apply(bare_database)
    [(name,)] = await bare_database.query("SELECT currentDatabase()")
    assert await tables_that_leak(bare_database, name) == []
    batch = writer(bare_database)
    give(batch, delivery(), [row(1, rawLog=f'{{"key": "{canary("row")}"}}'.encode())], [])
    await batch.flush()
    assert await tables_that_leak(bare_database, name) == ["openai_audit_logs"]
    await bare_database.command("DROP TABLE openai_audit_logs SYNC")
    assert await tables_that_leak(bare_database, name) == []


def test_the_marker_is_written_out_nowhere() -> None:
    """Or the scan of the repository would find it there."""
    for path in (ROOT / "tests").rglob("*.py"):
        assert MARKER.encode() not in path.read_bytes(), path
