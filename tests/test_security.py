"""SECURITY.md names only what exists."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from shipper.cli.simulate import demo, simulate
from shipper.config import Settings
from shipper.errors import UsageError
from shipper.settings_file import environment_name
from shipper.simulator import Organization, Simulator
from tests.organizations import NOW
from tests.rows import COLUMNS
from tests.test_readme import commands

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
CODE = set(re.findall(r"`([^`\n]+)`", TEXT.replace("`shipper\nstatus`", "`shipper status`")))


def test_what_stands_in_code_is_a_setting_a_column_a_command_or_a_file() -> None:
    """Each word, so that none outlives what it names."""
    known = {"demo", "http://", "https://", "/proc", "kubectl describe", "auto_migrate: false", "shipper-data/"}
    known |= {"Simulator(host=…, public=True)", "127.0.0.1:9464"}
    names = set(Settings.model_fields) | {environment_name(name) for name in Settings.model_fields} | set(COLUMNS)
    words = {" ".join(("shipper", *command)) for command in commands()}
    for code in CODE - known - names:
        command = re.sub(r" (ID|--\w+)\b", "", code)
        assert command in words or (ROOT / code).is_file(), code


def test_every_role_of_the_grants_and_every_secret_setting_is_spoken_of() -> None:
    """A new secret needs a line in the table."""
    secrets = {name.removesuffix("_file") for name, field in Settings.model_fields.items() if "Secret" in str(field)}
    assert secrets == {"admin_key", "clickhouse_password", "master_key"}
    roles = re.findall(r"CREATE ROLE IF NOT EXISTS shipper_(\w+)", (ROOT / "deploy/clickhouse/grants.sql").read_text())
    rows = [line.partition("|")[2].partition("|")[0].strip() for line in TEXT.splitlines() if line.startswith("| ")]
    assert {f"ClickHouse {role}" for role in roles} <= set(rows)
    assert any("admin key" in row for row in rows)
    assert any("master key" in row for row in rows)


async def test_only_the_simulators_class_listens_for_other_machines() -> None:
    """The two commands have no option for an address; the class wants it said in so many words."""
    for command in (simulate, demo):
        assert not {"host", "public", "address"} & set(inspect.signature(command).parameters)
    organization = Organization.build(seed=1, now=NOW, days=1)
    with pytest.raises(UsageError, match="the simulator listens on this machine only"):
        Simulator(organization, host="0.0.0.0")  # noqa: S104 - what is refused
    async with Simulator(organization, host="0.0.0.0", public=True) as simulator:  # noqa: S104 - what is allowed
        assert simulator.base_url.startswith("http://0.0.0.0:")
