"""The built wheel works by itself: with what a bare install brings, and without the checkout."""

from __future__ import annotations

import configparser
import email
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from shipper import __version__
from shipper.load import schema

ROOT = Path(__file__).parent.parent

# Put on the path as `sitecustomize`: what the tests' environment has and a bare install has not cannot be found.
_BARE = """
from importlib.machinery import PathFinder

absent = {"chdb", "pandas", "pyarrow", "numpy", "openai", "pytest", "pip", "hatchling", "mmdb_writer", "netaddr"}
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *where: None if name.partition(".")[0] in absent else find(name, *where)
"""

_SHIPPER = "import sys; from shipper.cli import main; sys.argv[0] = 'shipper'; main()"

# Imports everything but what is for the embedded database, and says where from.
_IMPORT_ALL = """
import importlib, pkgutil, shipper
for module in pkgutil.walk_packages(shipper.__path__, "shipper."):
    importlib.import_module(module.name)
print(shipper.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the declared build backend."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it lies in site-packages, in an interpreter that has no more than a bare install."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "sitecustomize.py").write_text(_BARE, encoding="utf-8")
    return folder


def _python(unpacked: Path, folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program where the wheel comes before the checkout, in an empty folder, without anybody's settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SHIPPER_", "OPENAI_"))}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(unpacked), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_holds_the_package_and_its_schemas(wheel: Path) -> None:
    """Every file of shipper/ and schemas/ is in it, the type marker included, and nothing else is."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    sources = {path for path in (ROOT / "shipper").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    schemas = {path for path in (ROOT / "schemas").rglob("*") if path.is_file()}
    expected = {path.relative_to(ROOT).as_posix() for path in sources}
    expected |= {f"shipper/{path.relative_to(ROOT).as_posix()}" for path in schemas}
    assert names - metadata == expected
    assert {"shipper/py.typed", "shipper/schemas/openai/events.json"} <= names
    assert {Path(name).name for name in metadata} == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "LICENSE"}


def test_the_wheel_declares_the_command_and_what_it_needs(wheel: Path) -> None:
    """One console script, the version of the code, the licence, and chDB only as an extra."""
    with zipfile.ZipFile(wheel) as archive:
        prefix = f"openai_audit_shipper-{__version__}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{prefix}/METADATA"))
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(f"{prefix}/entry_points.txt").decode())
    assert {name: dict(scripts[name]) for name in scripts.sections()} == {
        "console_scripts": {"shipper": "shipper.cli:main"}
    }
    assert (metadata["Name"], metadata["Version"]) == ("openai-audit-shipper", __version__)
    assert (metadata["License-Expression"], metadata["License-File"]) == ("Apache-2.0", "LICENSE")
    assert metadata.get_all("Provides-Extra") == ["embedded"]
    extra = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" in line]
    assert [line.partition(">")[0] for line in extra] == ["chdb"]


def test_the_command_works_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    """It says its version and prints the very SQL of the checkout, from its own copy."""
    version = _python(unpacked, tmp_path, _SHIPPER, "--version")
    assert (version.returncode, version.stdout, version.stderr) == (0, f"shipper {__version__}\n", "")
    shown = _python(unpacked, tmp_path, _SHIPPER, "schema", "show")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.rstrip("\n") == schema.show().rstrip("\n")
    assert list(tmp_path.iterdir()) == []


def test_every_module_imports_without_the_extra(unpacked: Path, tmp_path: Path) -> None:
    """A bare install can import all of the product: the embedded database is looked for only when it is opened."""
    result = _python(unpacked, tmp_path, _IMPORT_ALL)
    assert (result.returncode, result.stderr) == (0, "")
    assert Path(result.stdout.strip()) == unpacked / "shipper" / "__init__.py"


def test_the_embedded_database_without_the_extra_is_a_clear_error(unpacked: Path, tmp_path: Path) -> None:
    """The default database needs the extra: a bare install says so, and how to get it, with the code for settings."""
    result = _python(unpacked, tmp_path, _SHIPPER, "status")
    assert (result.returncode, result.stdout) == (78, "")
    assert "openai-audit-shipper[embedded]" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_incomplete_installation_is_noticed(unpacked: Path, tmp_path: Path) -> None:
    """Without its schemas the command does not fall back on something else."""
    hidden = unpacked / "shipper" / "schemas"
    moved = hidden.rename(unpacked / "elsewhere")
    try:
        result = _python(unpacked, tmp_path, _SHIPPER, "schema", "show")
    finally:
        moved.rename(hidden)
    assert (result.returncode, result.stdout) == (70, "")
    assert "the installation is incomplete" in result.stderr
