"""A real Prometheus Alertmanager for the tests, on a free port of this machine.

Where it comes from, the first that applies:

1. `prometheus-alertmanager` or `alertmanager` on PATH.
2. Debian's package, fetched once into `.cache/alertmanager/` with `apt-get download`, which needs no root. It is not
   installed: `dpkg-deb` unpacks it, and the one path in the program under which Debian keeps its templates is made
   relative to the folder it is started in.

Tests that need it are skipped only where neither way exists: no such program, and no apt-get.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clickhouse_server import free_port

PACKAGE = "prometheus-alertmanager"
CACHE = Path(__file__).parent.parent / ".cache" / "alertmanager"
_BINARY = Path("usr", "bin", PACKAGE)
# Of the same length, as it must be.
_ABSOLUTE, _RELATIVE = b"/usr/share/prometheus/alertmanager", b"usr//share/prometheus/alertmanager"
_UP_SECONDS = 60.0

_CONFIG = "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n"


class NoAlertmanager(Exception):  # noqa: N818 - says what is the matter
    """It could not be fetched or started; the message says why."""


def binary() -> Path:
    """The program, fetched when it is not in the cache. Two test runs at once may both fetch it."""
    for name in (PACKAGE, "alertmanager"):
        if found := shutil.which(name):
            return Path(found)
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        pytest.skip("no Alertmanager: put prometheus-alertmanager on PATH (it is fetched by itself where apt-get is)")
    path = CACHE / _BINARY
    if path.exists():
        return path
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent, prefix="fetch-") as name:
        scratch = Path(name)
        _fetch(scratch)
        try:
            (scratch / "unpacked").rename(CACHE)
        except OSError:
            # Another run was faster.
            if not path.exists():
                raise
    return path


def _fetch(scratch: Path) -> None:
    """Download the package with apt, which checks its signature and hash, and unpack it.

    Where no list of packages has ever been fetched, as in a fresh container, apt fetches one of its own.
    """
    if _apt(scratch, "download", PACKAGE).returncode:
        lists = scratch / "lists"
        (lists / "partial").mkdir(parents=True)
        own = ("-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={scratch}", "-o", "APT::Sandbox::User=")
        for arguments in (("update",), ("download", PACKAGE)):
            result = _apt(scratch, *own, *arguments)
            if result.returncode:
                raise NoAlertmanager(f"apt-get {arguments[0]} failed:\n{result.stderr[-2000:]}")
    [package] = scratch.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(scratch / "unpacked")], check=True, capture_output=True)
    program = scratch / "unpacked" / _BINARY
    program.write_bytes(program.read_bytes().replace(_ABSOLUTE, _RELATIVE))
    result = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False)
    if result.returncode:
        raise NoAlertmanager(f"{PACKAGE} does not start:\n{result.stderr[-2000:]}")


def _apt(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["apt-get", "-q", *arguments], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def alertmanager_url(tmp_path: Path) -> Iterator[str]:
    """The URL of a running Alertmanager that tells nobody."""
    config, log = tmp_path / "alertmanager.yml", tmp_path / "alertmanager.log"
    config.write_text(_CONFIG)
    port = free_port()
    program = binary()
    folder = CACHE if program.is_relative_to(CACHE) else tmp_path
    command = [
        str(program),
        f"--config.file={config}",
        f"--storage.path={tmp_path / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        # Alone: no port for others, which could be taken.
        "--cluster.listen-address=",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=folder)
    try:
        _wait(port, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _UP_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
        if process.poll() is not None or time.monotonic() > deadline:
            raise NoAlertmanager(f"it did not come up:\n{log.read_text(errors='replace')[-2000:]}")
