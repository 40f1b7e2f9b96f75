"""The error tree that a reader sees is the one in the code."""

from __future__ import annotations

import re

from shipper import errors
from shipper.errors import ExitCode, ShipperError

_LINE = re.compile(r"^ {4}((?:[│ ] {3})*(?:[├└]── )?)([A-Z]\w+) +(\d+) {2}(transient: )?", re.MULTILINE)


def _drawn() -> list[tuple[int, str, int, bool]]:
    """Depth, name, exit code and whether transient, line by line, of the tree in the docstring."""
    return [
        (len(branch) // 4, name, int(code), bool(transient))
        for branch, name, code, transient in _LINE.findall(errors.__doc__ or "")
    ]


def _coded(error: type[ShipperError] = ShipperError, depth: int = 0) -> list[tuple[int, str, int, bool]]:
    """The same of the classes, in the order they are written."""
    lines = [(depth, error.__name__, int(error.exit_code), error.transient)]
    for child in error.__subclasses__():
        if child.__module__ == errors.__name__:
            lines += _coded(child, depth + 1)
    return lines


def test_the_docstring_draws_the_tree_of_the_code() -> None:
    """Names, parents, order, exit codes and what is transient are the same in the drawing and in the classes."""
    assert _drawn() == _coded()


def test_every_exit_code_is_one_of_sysexits() -> None:
    """Codes are those of sysexits.h, and each but OK is what some error ends the process with."""
    sysexits = {0, *range(64, 79)}
    assert {int(code) for code in ExitCode} <= sysexits
    assert {ExitCode(code) for _, _, code, _ in _coded()} == set(ExitCode) - {ExitCode.OK}


def test_an_error_keeps_its_hint_out_of_its_message() -> None:
    """The hint is for the line below the message."""
    error = errors.ConfigError("no such setting", hint="Look at the list.")
    assert (str(error), error.hint) == ("no such setting", "Look at the list.")


def test_errors_of_the_api_and_the_database_carry_numbers_to_decide_on() -> None:
    """Status, request id and ClickHouse's code travel as values, absent when there was no answer."""
    refused = errors.ApiRefused("no", status=401, request_id="req_1")
    busy = errors.DatabaseBusy("held", code=36)
    assert (refused.status, refused.request_id, busy.code) == (401, "req_1", 36)
    silent = errors.ApiUnavailable("gone")
    assert (silent.status, silent.request_id, errors.DatabaseUnavailable("gone").code) == (None, None, None)
