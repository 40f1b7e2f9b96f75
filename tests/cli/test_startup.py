"""What a run that starts every minute does not pay for: libraries and modules that it has no use for stay out of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from shipper.simulator import Simulator
from tests.cli.test_process import environment, organization, quick

__all__ = ["organization", "quick"]

_PROGRAM = """
import json, sys
from shipper.cli import _run
code = _run(json.loads(sys.argv[1]))
print(json.dumps([code, sorted(sys.modules)]))
"""

# Not needed by a run into a server, whatever it finds. The driver and aiohttp bring the others that are loaded.
_UNUSED = (
    # Data frames and the engine, which the driver would load where they are installed.
    "pandas",
    "numpy",
    "pyarrow",
    "polars",
    "chdb",
    "shipper.load.embedded",
    # Read when there is such a file.
    "yaml",
    "shipper.enrich.tree",
    # A keystore, metrics.
    "cryptography",
    "shipper.keystore",
    "prometheus_client",
    "shipper.metrics",
    # Other commands.
    "shipper.cli.letters",
    "shipper.cli.look",
    "shipper.cli.maintain",
    "shipper.cli.simulate",
    "shipper.cli.sources",
    "shipper.simulator",
    "shipper.watch",
)


async def _loaded(arguments: list[str], env: dict[str, str], cwd: Path) -> set[str]:
    """The modules in a process after it has run the command, which must succeed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        json.dumps(arguments),
        env=env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    code, modules = json.loads(out.splitlines()[-1])
    assert code == 0, err.decode()
    return set(modules)


async def test_a_run_into_a_server_loads_nothing_that_it_has_no_use_for(
    quick: Simulator, server_url: str, tmp_path: Path
) -> None:
    """Neither a first run, which ships a month, nor the next, which finds nothing new."""
    for _ in range(2):
        loaded = await _loaded(["run", "--json"], environment(quick, server_url, SHIPPER_LOOKBACK="30d"), tmp_path)
        assert {"shipper.load.server", "shipper.cli.ship"} <= loaded
        assert sorted(loaded & set(_UNUSED)) == []


async def test_what_a_run_has_a_use_for_is_loaded(quick: Simulator, embedded_url: str, tmp_path: Path) -> None:
    """The embedded engine, YAML and the metrics, when they are asked for."""
    config = tmp_path / "shipper.yaml"
    config.write_text("lookback: 1d\nmetrics_file: shipper.prom\n")
    env = environment(quick, embedded_url, SHIPPER_CONFIG=str(config))
    loaded = await _loaded(["run", "--json"], env, tmp_path)
    wanted = {"chdb", "shipper.load.embedded", "yaml", "prometheus_client", "shipper.metrics"}
    assert wanted <= loaded
    assert "shipper.load.server" not in loaded
