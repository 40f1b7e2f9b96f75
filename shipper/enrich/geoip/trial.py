"""Tries a database out in a child process before the C reader may open it here.

The C reader crashes on some damaged files (a map whose key is no string, found by flipping bytes). What it does with
a file depends on the file's bytes alone, so a copy that a child has read as a whole is safe to read here. The child
gets the copy as a file descriptor, no environment and no other open file.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import maxminddb

from shipper.enrich.geoip import trial_program
from shipper.enrich.geoip.copies import PrivateCopy

PROGRAM = Path(trial_program.__file__)

# Reading 300,000 distinct records through 10 million nodes, 120 MB, took 10 s.
LIMIT = 120

# Signals that a process sends to itself by its own fault.
_CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})


class Verdict(Enum):
    """What came of a trial.

    UNDECIDED says nothing of the file: the trial could not be held, took too long, or was killed. NO_C_READER says that
    there is nothing to try: maxminddb was built without its C reader, and the pure one is what reads here.
    """

    SOUND = "every record can be read"
    DAMAGED = "it holds records that cannot be read"
    CRASHED = "it crashes the process that reads it"
    UNDECIDED = "it could not be tried out"
    NO_C_READER = "there is no C reader here to try it out with"


class Trial:
    """One trial, begun when this is made. It runs beside the work: nobody waits for it who does not want to."""

    def __init__(
        self,
        copy: PrivateCopy,
        *,
        limit: int = LIMIT,
        program: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._deadline = clock() + limit
        self._verdict: Verdict | None = None
        folder = Path(maxminddb.__file__).parent.parent
        command = [sys.executable, "-I", "-S", str(program or PROGRAM), str(folder), str(copy.fd), str(limit)]
        try:
            self._child: subprocess.Popen[bytes] | None = subprocess.Popen(  # noqa: S603 - our own program and a number
                command,
                pass_fds=(copy.fd,),
                env={},
                cwd="/",
                process_group=0,  # Ctrl-C on the terminal is not meant for it
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            self._child = None
            self._verdict = Verdict.UNDECIDED

    def verdict(self) -> Verdict | None:
        """None while the trial goes on."""
        if self._child is not None:
            code = self._child.poll()
            if code is None and self._clock() >= self._deadline:
                self.close()
            elif code is not None:
                self._child = None
                self._verdict = _read(code)
        return self._verdict

    def wait(self) -> Verdict:
        """The verdict, when it is there: at the latest when the time limit is."""
        if self._child is not None:
            try:
                self._child.wait(max(0.0, self._deadline - self._clock()))
            except subprocess.TimeoutExpired:
                self.close()
        return self.verdict() or Verdict.UNDECIDED

    def close(self) -> None:
        """End it without an answer, unless there is one."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
            self._verdict = Verdict.UNDECIDED


def _read(code: int) -> Verdict:
    if code == trial_program.SOUND:
        return Verdict.SOUND
    if code == trial_program.DAMAGED:
        return Verdict.DAMAGED
    if code == trial_program.NO_C_READER:
        return Verdict.NO_C_READER
    return Verdict.CRASHED if -code in _CRASHES else Verdict.UNDECIDED
