"""The command line: parse, call, print. `main` turns every error into one message, a hint and an exit code."""

from __future__ import annotations

import gc
import io
import os
import sys


def main() -> None:
    """The console script `shipper`."""
    # The one place that has a say over the garbage collector. What is imported is no garbage, rows make no cycles, and
    # at the end all of it goes with the process. By default Python looks through it more than a hundred times during
    # the imports alone: a fifth of what a short command costs, and a sixth of what a row costs.
    gc.set_threshold(200_000, 20, 20)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A report of `watch` is there when the pass has ended, also for a reader at the other end of a pipe.
        sys.stdout.reconfigure(line_buffering=True)
    code = _run(sys.argv[1:])
    gc.freeze()
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    import typer

    from shipper.cli.app import build
    from shipper.errors import ExitCode, ShipperError
    from shipper.telemetry import configure_logging, logger

    # Until the settings are read: standard output is for results, and a traceback shows no local variables.
    configure_logging()
    try:
        result = build()(arguments or ["--help"], prog_name="shipper", standalone_mode=False)
    except typer.TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "shipper")
        _complain(error.format_message(), f"`{command} --help` explains it.")
        return ExitCode.USAGE
    except (typer.Abort, KeyboardInterrupt):
        _complain("interrupted", "What was acknowledged is kept; run it again for the rest.")
        return ExitCode.TEMPFAIL
    except ShipperError as error:
        _complain(str(error), error.hint)
        return error.exit_code
    except BrokenPipeError:
        # The reader of standard output went away (`shipper query … | head`). Nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception:  # noqa: BLE001 - the last resort: log the traceback, which holds no values
        logger().exception("unexpected error")
        _complain("this is a bug", "Please report it with the log above.")
        return ExitCode.SOFTWARE
    return result if isinstance(result, int) else ExitCode.OK


def _complain(message: str, hint: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint:  {hint}", file=sys.stderr)
