"""Running the command line: in this process for what it prints, as a process for signals and for what others see."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from shipper.cli import _run
from tests.secrets_scan import canary

SHIPPER = Path(sys.executable).parent / "shipper"

KEY = canary("cli")


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


Shipper = Callable[..., Result]


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting of ours, of OpenAI's SDK, or of how Python buffers."""
    ours = ("SHIPPER_", "OPENAI_", "PYTHONUNBUFFERED")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture
def shipper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Shipper:
    """Run one command in an empty folder: `shipper("run", "--json")`. Environment names are arguments by name."""
    for name in os.environ.keys() - clean_environment().keys():
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str, **environment: str) -> Result:
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            capfdbinary.readouterr()
            code = _run(list(arguments))
            sys.stdout.flush()
            out, err = capfdbinary.readouterr()
        return Result(int(code), out.decode(), err.decode())

    return run


@pytest.fixture(scope="session")
def organization() -> Iterator[dict[str, str]]:
    """The environment of a running `shipper simulate`: a few days of events, served until the tests end."""
    command = [str(SHIPPER), "simulate", "--port", "0", "--days", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment()) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "export" in line)
        yield dict(pair.split("=", 1) for pair in line.split()[1:])
        process.terminate()
        assert process.wait() == 0
