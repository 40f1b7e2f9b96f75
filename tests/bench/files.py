"""Where the benchmark keeps what it makes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / ".cache" / "bench"


def made(path: Path, make: Callable[[Path], object]) -> Path:
    """`path`, written by `make` when it is not there: under another name first, so that a file is whole or missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        make(part)
        part.rename(path)
    return path
