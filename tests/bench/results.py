"""Figures, what they have to be, and how they are shown: on the terminal and in the README, which say the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tests.bench.files import ROOT

README = ROOT / "README.md"
_MARKED = re.compile(r"<!-- benchmark: generated -->.*?<!-- end -->", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process cost: seconds, CPU seconds (user and system, its children's too), bytes of memory at most.

    `asked` are the moments at which it asked the API for a page.
    """

    wall: float
    cpu: float
    rss: int
    asked: Sequence[float] = ()
    output: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that has to be so, the figure that was measured, and whether it is."""

    wanted: str
    figure: str
    passed: bool

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.wanted}: {self.figure}"


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the benchmark: a Markdown text of tables, its verdicts, and all that was measured, as plain data."""

    name: str
    text: str
    verdicts: Sequence[Verdict]
    raw: Any


@dataclass(frozen=True, slots=True)
class Figure:
    """The medians of some runs that shipped `events` events each."""

    events: int
    runs: Sequence[Cost]

    @property
    def wall(self) -> float:
        return median(run.wall for run in self.runs)

    @property
    def cpu(self) -> float:
        return median(run.cpu for run in self.runs)

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.wall

    @property
    def micros(self) -> float:
        """CPU microseconds per event."""
        return self.cpu / self.events * 1e6

    @property
    def mebibytes(self) -> float:
        return median(run.rss for run in self.runs) / 2**20

    def as_dict(self) -> dict[str, Any]:
        runs = [{"wall": run.wall, "cpu": run.cpu, "rss": run.rss, "requests": len(run.asked)} for run in self.runs]
        return {"events": self.events, "runs": runs}


def busiest_second(moments: Sequence[float]) -> int:
    """The most requests in any stretch of one second."""
    ordered = sorted(moments)
    most = first = 0
    for last, moment in enumerate(ordered):
        while moment - ordered[first] >= 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right, also readable as it is."""
    cells = [list(head), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [cells[0], rule, *cells[1:]]
    return "\n".join(
        "| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in lines
    )


def as_markdown(introduction: str, sections: Sequence[Section]) -> str:
    """What the README has between its markers."""
    verdicts = [verdict for section in sections for verdict in section.verdicts]
    wanted = table(("wanted", "measured", ""), ((v.wanted, v.figure, "yes" if v.passed else "no") for v in verdicts))
    return "\n\n".join([introduction, *(section.text for section in sections), wanted])


def write_readme(text: str) -> None:
    """Put the text between the README's markers."""
    old = README.read_text(encoding="utf-8")
    if not _MARKED.search(old):
        raise ValueError("README.md has no place for the benchmark")
    new = f"<!-- benchmark: generated -->\n\n{text}\n\n<!-- end -->"
    README.write_text(_MARKED.sub(lambda _: new, old), encoding="utf-8")
