"""The commands that maintain: schema apply, show and diff; config show."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shipper.cli.context import settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shipper.load.clickhouse import Database


def schema_apply() -> int:
    """Apply the migrations the database lacks.

    A run does this by itself unless auto_migrate is off.
    """
    from shipper.load import schema

    names = _with_database(schema.apply)
    for name in names:
        print(f"applied {name}")
    print("the schema is up to date" if names else "nothing to apply: the schema is up to date")
    return 0


def schema_show() -> int:
    """Print the SQL of every migration.

    The SQL is the truth for names, types, order and comments.
    """
    from shipper.load import schema

    print(schema.show())
    return 0


def schema_diff() -> int:
    """Say what the database has differently.

    Compared with this version's SQL. Exit code 78 when there is something.
    """
    from shipper.errors import ExitCode
    from shipper.load import schema

    differences = _with_database(schema.diff)
    for line in differences:
        print(line)
    if differences:
        return ExitCode.CONFIG
    print("no differences")
    return 0


def config_show() -> int:
    """Print every setting, secrets as <SECRET>.

    It is YAML, and a valid configuration file once the secrets are filled in.
    """
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
