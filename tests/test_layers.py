"""Imports only point down, and each outside library is used in one place.

The table below has a line per layer, the lowest first. A module or folder of `shipper/` imports from lower lines only;
siblings on one line never import each other. Imports inside a function count as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "shipper"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"model", "assets", "secret_text"}),
    frozenset({"durations", "tls", "masterkey"}),
    frozenset({"keystore", "outbound"}),
    frozenset({"detection_settings"}),
    frozenset({"config", "telemetry", "stopping"}),
    frozenset({"settings_file"}),
    frozenset({"fetch", "normalize", "enrich", "load"}),
    frozenset({"pipeline", "simulator", "detect"}),
    frozenset({"run"}),
    frozenset({"check", "status", "demo", "dead_letters", "sources", "watch", "metrics"}),
    frozenset({"cli"}),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# The simulated organization stands in for the API: it must not share code with what reads it.
NOT_ALLOWED = {"simulator": frozenset({"fetch", "normalize", "enrich", "load"})}

# Outside libraries that one part alone may use.
OWNERS = {
    # The driver's transport is aiohttp and lets its errors through: faults names their type, and only that.
    "aiohttp": (
        "shipper.outbound",
        "shipper.fetch",
        "shipper.simulator",
        "shipper.load.faults",
        "shipper.metrics",
        "shipper.detect.alerts",
    ),
    "prometheus_client": ("shipper.metrics",),
    "clickhouse_connect": ("shipper.load",),
    "chdb": ("shipper.load",),
    "maxminddb": ("shipper.enrich.geoip",),
    "geoip2": ("shipper.enrich.geoip",),
}

# Names that say nothing about what is inside.
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "common", "misc"}

_IMPORTING = {"__import__", "import_module", "importlib.import_module"}


def _modules(package: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything the module imports, anywhere in it, relative imports resolved.

    `from shipper import x` and `from shipper.load import y` give the name itself too: it may be a module.
    """
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in _IMPORTING:
            words = (argument.value for argument in node.args if isinstance(argument, ast.Constant))
            yield from ((node.lineno, word) for word in words if isinstance(word, str))


def _inside(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _violations(package: Path) -> list[str]:
    """What breaks the rules, one sentence each."""
    wrong = []
    for name, path in _modules(package).items():
        part = name.split(".")[1] if "." in name else None
        if part is not None and part not in LEVEL:
            wrong.append(f"{name} is not in the table of layers")
            continue
        if EMPTY_NAMES & set(name.split(".")):
            wrong.append(f"{name} has a name that says nothing")
        for line, imported in _imports(name, path):
            words = imported.split(".")
            if words[0] in OWNERS and not _inside(name, OWNERS[words[0]]):
                wrong.append(f"{name}:{line} uses {words[0]}, which belongs to {' and '.join(OWNERS[words[0]])}")
            if words[0] != "shipper" or len(words) == 1 or words[1] == part or words[1].startswith("__"):
                continue
            target = words[1]
            if target not in LEVEL:
                wrong.append(f"{name}:{line} imports {imported}, which is not in the table of layers")
            elif part is None or LEVEL[target] >= LEVEL[part] or target in NOT_ALLOWED.get(part, ()):
                wrong.append(f"{name}:{line} imports {target}, which does not lie below it")
    return wrong


def test_imports_only_point_down() -> None:
    """No module imports from its own layer or from above it, none is missing from the table, no library strays."""
    assert _violations(PACKAGE) == []


def test_the_table_names_only_what_exists() -> None:
    """A line for something that is gone would hide its return under another meaning."""
    names = {name.split(".")[1] for name in _modules(PACKAGE) if "." in name}
    assert names == set(LEVEL)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("fetch/windows.py", "from shipper.load import schema", "shipper.fetch.windows:1 imports load"),
        ("fetch/windows.py", "import shipper.pipeline", "shipper.fetch.windows:1 imports pipeline"),
        ("fetch/windows.py", "from ..run import Run", "shipper.fetch.windows:1 imports run"),
        ("fetch/windows.py", "from shipper import load", "shipper.fetch.windows:1 imports load"),
        ("errors.py", "def late():\n    from shipper.model import Row", "shipper.errors:2 imports model"),
        ("errors.py", "if TYPE_CHECKING:\n    import shipper.config", "shipper.errors:2 imports config"),
        (
            "model.py",
            "from importlib import import_module\nimport_module('shipper.run')",
            "shipper.model:2 imports run",
        ),
        ("__init__.py", "from shipper.errors import ShipperError", "shipper:1 imports errors"),
        ("status.py", "from shipper.check import check", "shipper.status:1 imports check"),
        ("simulator/log.py", "from shipper.normalize import normalize", "shipper.simulator.log:1 imports normalize"),
        ("run.py", "import aiohttp.web", "shipper.run:1 uses aiohttp"),
        ("status.py", "from clickhouse_connect.driver import tools", "shipper.status:1 uses clickhouse_connect"),
        ("enrich/lists.py", "def f():\n    import geoip2.database", "shipper.enrich.lists:2 uses geoip2"),
        ("new_part.py", "", "shipper.new_part is not in the table"),
        ("new_part/inner.py", "", "shipper.new_part.inner is not in the table"),
        ("load/utils.py", "", "shipper.load.utils has a name that says nothing"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, module: str, source: str, complaint: str) -> None:
    """The rules can fail: a package of one bad line has exactly that complaint."""
    path = tmp_path / "shipper" / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    (violation,) = _violations(tmp_path / "shipper")
    assert violation.startswith(complaint)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("fetch/client.py", "import aiohttp\nfrom shipper.fetch.faults import x\nfrom . import paging"),
        ("load/faults.py", "from aiohttp import ClientError"),
        ("enrich/geoip.py", "import maxminddb"),
        ("cli/app.py", "from shipper import __version__\nfrom shipper.run import Run"),
        ("demo.py", "from shipper.simulator import Simulator"),
    ],
)
def test_what_points_down_is_left_alone(tmp_path: Path, module: str, source: str) -> None:
    """A module may use its own folder, every layer below, the version, and the libraries that are its own."""
    path = tmp_path / "shipper" / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    assert _violations(tmp_path / "shipper") == []
