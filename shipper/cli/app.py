"""The commands, in the order that help lists them."""

from __future__ import annotations

from collections.abc import Callable

import typer

from shipper.cli import letters, look, maintain, ship, simulate, sources
from shipper.cli.context import shared_options

_COMMANDS = (
    simulate.demo,
    look.check,
    ship.run,
    ship.watch,
    ship.backfill,
    ship.replay,
    look.status,
    look.query,
    simulate.simulate,
)
_GROUPS: dict[str, tuple[str, dict[str, Callable[..., int]]]] = {
    "dead-letters": (
        "What could not be a row: list, show, replay.",
        {"list": letters.dead_letters_list, "show": letters.dead_letters_show, "replay": letters.dead_letters_replay},
    ),
    "sources": (
        "The keystore: organizations and their admin keys, encrypted.",
        {
            "add": sources.add,
            "list": sources.list_,
            "test": sources.try_keys,
            "remove": sources.remove,
            "rotate": sources.rotate,
            "new-master-key": sources.new_master_key,
        },
    ),
    "schema": (
        "The tables in ClickHouse: apply, show, diff.",
        {"apply": maintain.schema_apply, "show": maintain.schema_show, "diff": maintain.schema_diff},
    ),
    "config": ("The settings in force.", {"show": maintain.config_show}),
}


def build() -> typer.Typer:
    """The application with every command."""
    app = typer.Typer(
        name="shipper",
        help="Ship an OpenAI organization's audit log into ClickHouse.\n\n"
        "New here? `shipper demo` needs no key and no server. With an admin key in OPENAI_ADMIN_KEY_FILE: "
        "`shipper check`, then `shipper run`.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(shared_options)
    for command in _COMMANDS:
        app.command()(command)
    for name, (help_text, commands) in _GROUPS.items():
        group = typer.Typer(help=help_text, rich_markup_mode=None)
        for command_name, function in commands.items():
            group.command(command_name)(function)
        app.add_typer(group, name=name)
    return app
