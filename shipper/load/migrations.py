"""The migrations in `schemas/clickhouse`: numbered files of SQL with holes for the engine and for ON CLUSTER."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from shipper.assets import schemas
from shipper.errors import SchemaError

_NAME = re.compile(r"(\d{4})_\w+\.sql")
_HOLE = re.compile(r"\{(on_cluster|engine:(\w+))\}")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `statements` are ready to run; `checksum` is over the template, so that it is the same everywhere."""

    version: int
    name: str
    checksum: str
    statements: tuple[str, ...]


def migrations(folder: Path | None = None) -> list[Migration]:
    """All migrations in order. Raises SchemaError for a folder with a misnamed file or two of one number."""
    found: list[Migration] = []
    for path in sorted((folder or schemas("clickhouse")).glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None or (found and found[-1].version == int(match[1])):
            raise SchemaError(f"{path}: expected NNNN_what.sql with a number of its own")
        text = path.read_text(encoding="utf-8")
        found.append(
            Migration(
                version=int(match[1]),
                name=path.stem,
                checksum=hashlib.sha256(text.encode()).hexdigest(),
                statements=tuple(_statements(_render(text))),
            )
        )
    return found


def _render(template: str) -> str:
    """Fill the holes for a single server: the plain engine, no cluster."""
    return _HOLE.sub(lambda match: match[2] or "", template)


def _statements(text: str) -> Iterable[str]:
    """The statements of a file: each ends in `;` at the end of a line. A file may also hold one without it."""
    for part in re.split(r";[ \t]*(?:\n|$)", text):
        lines = [line for line in part.splitlines() if not line.lstrip().startswith("--")]
        if statement := "\n".join(lines).strip():
            yield statement
