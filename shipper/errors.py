"""Every error this product raises on purpose, and what the process does about it.

    ShipperError                70  a bug, unless a subclass says otherwise
    ├── UsageError              64  the command line asks for something that cannot be done
    ├── InputError              65  a file or stream that is not what it should be
    ├── ConfigError             78  a setting is missing, unknown or wrong
    ├── ApiError                69  the API answered, and not with what was asked for
    │   ├── ApiUnavailable      69  transient: the API stayed out of reach or overloaded through every retry
    │   ├── ApiRefused          77  401 or 403: the key may not do this
    │   ├── ApiRejected         69  400, 404, 422 …: the API does not accept this request
    │   └── ApiProtocolError    69  the answer breaks the API's own contract (a cursor that repeats, no envelope)
    ├── DatabaseError           69  ClickHouse answered with an error code
    │   ├── DatabaseUnavailable 69  transient: ClickHouse stayed out of reach through every retry
    │   ├── DatabaseBusy        75  transient: another process holds the embedded database's directory
    │   ├── DatabaseRefused     77  ClickHouse refused the user or the user's rights
    │   └── SchemaError         78  the database's schema is not the one this version needs
    │       └── NoDatabase      78  there is no embedded database yet
    ├── AlertError              69  a receiver of alerts did not accept one
    ├── LeaseHeld               75  transient: another run writes the source, for longer than this one waits
    ├── LeaseLost               75  transient: the lease of a source was not renewed in time, so that the run stopped
    ├── Interrupted             75  transient: stopped by a signal; what was committed is kept
    └── AccountingError         70  received is not inserted + already there + dead-lettered

Exit codes follow sysexits.h. A message says what was expected and what came; the hint says what to do next. Neither
ever holds a secret.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """The exit codes of every command, named as in sysexits.h."""

    OK = 0
    USAGE = 64
    DATAERR = 65
    UNAVAILABLE = 69
    SOFTWARE = 70
    TEMPFAIL = 75
    NOPERM = 77
    CONFIG = 78


class ShipperError(Exception):
    """The root. `hint` is one sentence on what to do; `transient` says that the same call may work later."""

    exit_code: ClassVar[ExitCode] = ExitCode.SOFTWARE
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(ShipperError):
    exit_code = ExitCode.USAGE


class InputError(ShipperError):
    exit_code = ExitCode.DATAERR


class ConfigError(ShipperError):
    exit_code = ExitCode.CONFIG


class ApiError(ShipperError):
    """`status` is the HTTP status or None when there was no answer; `request_id` is the API's x-request-id."""

    exit_code = ExitCode.UNAVAILABLE

    def __init__(
        self, message: str, *, hint: str = "", status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.request_id = request_id


class ApiUnavailable(ApiError):
    transient = True


class ApiRefused(ApiError):
    exit_code = ExitCode.NOPERM


class ApiRejected(ApiError):
    pass


class ApiProtocolError(ApiError):
    pass


class DatabaseError(ShipperError):
    """`code` is ClickHouse's numeric error code, or None when there was no answer."""

    exit_code = ExitCode.UNAVAILABLE

    def __init__(self, message: str, *, hint: str = "", code: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class DatabaseUnavailable(DatabaseError):
    transient = True


class DatabaseBusy(DatabaseError):
    exit_code = ExitCode.TEMPFAIL
    transient = True


class DatabaseRefused(DatabaseError):
    exit_code = ExitCode.NOPERM


class SchemaError(DatabaseError):
    exit_code = ExitCode.CONFIG


class NoDatabase(SchemaError):
    pass


class AlertError(ShipperError):
    exit_code = ExitCode.UNAVAILABLE


class LeaseHeld(ShipperError):
    exit_code = ExitCode.TEMPFAIL
    transient = True


class LeaseLost(ShipperError):
    exit_code = ExitCode.TEMPFAIL
    transient = True


class Interrupted(ShipperError):
    exit_code = ExitCode.TEMPFAIL
    transient = True


class AccountingError(ShipperError):
    pass
