"""What all commands share: the settings of this process, its logs, and how it is asked to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipper.config import Settings
from shipper.errors import ExitCode
from shipper.settings_file import load_settings
from shipper.telemetry import configure_logging

if TYPE_CHECKING:
    from shipper.metrics import Metrics

_given: dict[str, str | Path] = {}


def _version(value: bool) -> None:
    if value:
        from shipper import __version__

        typer.echo(f"shipper {__version__}")
        raise typer.Exit


def shared_options(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file of settings. Default: SHIPPER_CONFIG.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options before the command."""
    _given.clear()
    if config:
        _given["config"] = config
    if log_level:
        _given["log_level"] = log_level


def settings(**overrides: object) -> Settings:
    """The settings of this process, with logging set up from them. `overrides` yield to the command line."""
    given = dict(_given)
    path = given.pop("config", None)
    loaded = load_settings(Path(path) if path else None, {**overrides, **given})
    configure_logging(loaded.log_format, loaded.log_level)
    return loaded


def metrics_of(loaded: Settings, *, watching: bool = False) -> Metrics | None:
    """The metrics, when a setting of this command switches them on; the library is imported only then."""
    if loaded.metrics_file is None and not (watching and loaded.metrics_listen):
        return None
    from shipper.metrics import Metrics

    return Metrics(loaded.metrics_file, counting=watching)


def until_stopped(work: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    """Run `work` with an event that SIGTERM and Ctrl-C set. A second signal ends the process at once."""

    async def run() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ask(signal_number: int) -> None:
            stop.set()
            loop.add_signal_handler(signal_number, os._exit, ExitCode.TEMPFAIL)

        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, ask, signal_number)
        return await work(stop)

    return asyncio.run(run())
