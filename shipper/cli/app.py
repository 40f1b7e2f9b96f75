"""The commands, in the order that help lists them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from shipper.cli.context import shared_options

# A command by its name: the function in a module of this folder.
_COMMANDS = {
    "demo": "simulate.demo",
    "check": "look.check",
    "run": "ship.run",
    "watch": "ship.watch",
    "backfill": "ship.backfill",
    "replay": "ship.replay",
    "detect": "detect.detect",
    "status": "look.status",
    "query": "look.query",
    "simulate": "simulate.simulate",
}
_GROUPS = {
    "findings": (
        "What the detections found: list, show, ack.",
        {"list": "findings.list_", "show": "findings.show", "ack": "findings.ack"},
    ),
    "dead-letters": (
        "What could not be a row: list, show, replay.",
        {
            "list": "letters.dead_letters_list",
            "show": "letters.dead_letters_show",
            "replay": "letters.dead_letters_replay",
        },
    ),
    "alerts": (
        "Where findings are sent: test, list.",
        {"test": "alerts.try_route", "list": "alerts.list_"},
    ),
    "sources": (
        "The keystore: organizations and their admin keys, encrypted.",
        {
            "add": "sources.add",
            "list": "sources.list_",
            "test": "sources.try_keys",
            "remove": "sources.remove",
            "rotate": "sources.rotate",
            "new-master-key": "sources.new_master_key",
        },
    ),
    "schema": (
        "The tables in ClickHouse: apply, show, diff.",
        {"apply": "maintain.schema_apply", "show": "maintain.schema_show", "diff": "maintain.schema_diff"},
    ),
    "config": ("The settings in force.", {"show": "maintain.config_show"}),
}


class _Commands(TyperGroup):
    """Makes a command, and imports its module, when it is asked for: `run` starts every minute and wants one."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; an unknown name makes them all, for the suggestion of one that is near."""
        for name in (cmd_name,) if cmd_name in _COMMANDS or cmd_name in _GROUPS else (*_COMMANDS, *_GROUPS):
            if name not in self.commands:
                self.commands[name] = _made(name)
        return self.commands.get(cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        return [*_COMMANDS, *_GROUPS]


def build() -> typer.Typer:
    """The application."""
    app = typer.Typer(
        name="shipper",
        cls=_Commands,
        help="Ship an OpenAI organization's audit log into ClickHouse.\n\n"
        "New here? `shipper demo` needs no key and no server. With an admin key in OPENAI_ADMIN_KEY_FILE: "
        "`shipper check`, then `shipper run`.",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(shared_options)
    return app


def _made(name: str) -> Any:
    """A command or a group, as Typer makes it of an application that has nothing else."""
    app = typer.Typer(name=name, add_completion=False, rich_markup_mode=None)
    if name in _COMMANDS:
        app.command(name)(_function(_COMMANDS[name]))
    else:
        help_text, commands = _GROUPS[name]
        # With a callback it is a group, also when it has one command.
        app.callback(help=help_text)(lambda: None)
        for inner, function in commands.items():
            app.command(inner)(_function(function))
    return typer.main.get_command(app)


def _function(dotted: str) -> Callable[..., int]:
    module, _, name = dotted.partition(".")
    function: Callable[..., int] = getattr(importlib.import_module(f"shipper.cli.{module}"), name)
    return function
