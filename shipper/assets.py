"""Finds the files that ship beside the code: `schemas/` in a checkout, `shipper/schemas/` in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def schemas(*parts: str) -> Path:
    """The path of a file or folder under `schemas/`. Raises FileNotFoundError when the installation lacks it."""
    for root in (_PACKAGE / "schemas", _PACKAGE.parent / "schemas"):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise FileNotFoundError(f"schemas/{'/'.join(parts)} is missing: the installation is incomplete")
