"""The commands that maintain: schema apply, show and diff; config show."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from shipper.cli.app import app, settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shipper.load.clickhouse import Database

schema_app = typer.Typer(
    help="The tables in ClickHouse: apply, show, diff.", no_args_is_help=True, rich_markup_mode=None
)
config_app = typer.Typer(help="The settings in force.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(schema_app, name="schema")
app.add_typer(config_app, name="config")


@schema_app.command("apply")
def schema_apply() -> int:
    """Apply the migrations the database lacks. A run does this by itself unless auto_migrate is off."""
    from shipper.load import schema

    names = _with_database(schema.apply)
    for name in names:
        print(f"applied {name}")
    print("the schema is up to date" if names else "nothing to apply: the schema is up to date")
    return 0


@schema_app.command("show")
def schema_show() -> int:
    """Print the SQL of every migration: the truth for names, types, order and comments."""
    from shipper.load import schema

    print(schema.show())
    return 0


@schema_app.command("diff")
def schema_diff() -> int:
    """Say what the database has differently from this version's SQL. Exit code 78 when there is something."""
    from shipper.errors import ExitCode
    from shipper.load import schema

    differences = _with_database(schema.diff)
    for line in differences:
        print(line)
    if differences:
        return ExitCode.CONFIG
    print("no differences")
    return 0


@config_app.command("show")
def config_show() -> int:
    """Print every setting as YAML, secrets as <SECRET>. What it prints is a valid configuration file, secrets aside."""
    import yaml

    print(yaml.safe_dump(settings().public(), sort_keys=False, default_flow_style=False), end="")
    return 0


def _with_database(work: Callable[[Database], Awaitable[list[str]]]) -> list[str]:
    from shipper.load.clickhouse import connect

    loaded = settings()

    async def call() -> list[str]:
        database = await connect(loaded)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(call())
