"""The Typer application and what all commands share: the configuration file and the logs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from shipper.config import Settings, load_settings
from shipper.telemetry import configure_logging

app = typer.Typer(
    name="shipper",
    help="Ship an OpenAI organization's audit log into ClickHouse: no event lost, none counted twice.\n\n"
    "New here? `shipper demo` needs no key and no server. With an admin key in OPENAI_ADMIN_KEY_FILE: "
    "`shipper check`, then `shipper run`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_config: dict[str, object] = {}


def _version(value: bool) -> None:
    if value:
        from shipper import __version__

        typer.echo(f"shipper {__version__}")
        raise typer.Exit


@app.callback()
def _shared(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file of settings. Default: SHIPPER_CONFIG.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    _config.clear()
    _config["path"] = config
    _config["overrides"] = {"log_level": log_level} if log_level else {}


def settings(**overrides: object) -> Settings:
    """The settings of this process, with logging set up from them."""
    path, base = _config.get("path"), _config.get("overrides")
    loaded = load_settings(
        path if isinstance(path, Path) else None, {**(base if isinstance(base, dict) else {}), **overrides}
    )
    configure_logging(loaded.log_format, loaded.log_level)
    return loaded


def until_stopped(work: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    """Run `work` with an event that SIGTERM and Ctrl-C set. A second signal ends the process at once."""

    async def run() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ask(signal_number: int) -> None:
            stop.set()
            loop.remove_signal_handler(signal_number)

        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, ask, signal_number)
        return await work(stop)

    return asyncio.run(run())
