"""The benchmark, run by `make bench`.

Contenders take turns, and each figure is the median of its runs. A contender that does not ship exactly the events
makes its figure void and ends the benchmark with exit code 1. What was wanted and is missed is only said. A whole
benchmark (nothing left out, full size, five runs) rewrites its part of the README.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from tests.bench import shipping
from tests.bench.contenders import Task
from tests.bench.files import CACHE
from tests.bench.profile import profile
from tests.bench.results import Section, as_markdown, write_readme
from tests.bench.rig import Rig, Void
from tests.bench.shipping import Options, Say

Part = Callable[[Rig, Options, Say], Section]

# A module of its own, which may need more than the others: looked for only when it is wanted.
_QUERIES = "tests.bench.queries"

PARTS: dict[str, Part] = {
    "backfill": shipping.backfill,
    "latency": shipping.latency,
    "replay": shipping.replay,
    "memory": shipping.memory,
    "run": shipping.run_again,
}
_WHOLE = Options(runs=5, scale=1.0)


def _parts() -> dict[str, Part]:
    """All parts. That of the queries is `measure` of its module, with the same arguments as the others."""
    if importlib.util.find_spec(_QUERIES) is None:
        return PARTS
    return {**PARTS, "queries": importlib.import_module(_QUERIES).measure}


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def _introduction(rig: Rig, options: Options) -> str:
    runs = "One run" if options.runs == 1 else f"Medians of {options.runs} runs"
    size = "" if options.scale == 1 else f", {options.scale:g} of the full size"
    clickhouse = rig.sql("SELECT version()")
    return (
        f"{runs}{size}. {os.cpu_count()} cores shared by the client, the API and ClickHouse {clickhouse}; "
        f"Python {platform.python_version()}."
    )


def _profiled(rig: Rig, options: Options, names: Sequence[str]) -> None:
    tasks = {"backfill": 100_000, "replay": 200_000}
    for name in [name for name in tasks if name in names] or tasks:
        print(f"\n{name}\n{profile(rig, Task(name, name, options.events(tasks[name])))}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parts = _parts()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the shipper and its peers.")
    parser.add_argument("--runs", type=int, default=_WHOLE.runs, help="how often each is measured")
    parser.add_argument("--scale", type=float, default=_WHOLE.scale, help="how many of the events, 1 is all")
    parser.add_argument("--only", action="append", choices=parts, help="one part; may be given again")
    parser.add_argument("--profile", action="store_true", help="profile the shipper in place of measuring")
    given = parser.parse_args(arguments)
    options, chosen = Options(given.runs, given.scale), given.only or list(parts)
    began = time.strftime("%Y%m%dT%H%M%S")
    try:
        with Rig() as rig:
            if given.profile:
                _profiled(rig, options, chosen)
                return 0
            sections = [parts[name](rig, options, _say) for name in chosen]
            text = as_markdown(_introduction(rig, options), sections)
    except Void as void:
        print(f"error: a figure is void: {void}", file=sys.stderr)
        return 1
    raw = {
        "options": vars(given),
        "sections": {section.name: section.raw for section in sections},
        "verdicts": [asdict(verdict) for section in sections for verdict in section.verdicts],
    }
    (CACHE / f"results-{began}.json").write_text(json.dumps(raw, indent=1))
    print("\n\n".join([*(section.text for section in sections), *_verdicts(sections)]))
    if options == _WHOLE and not given.only:
        write_readme(text)
        print("\nREADME.md has the new figures.")
    return 0


def _verdicts(sections: Sequence[Section]) -> list[str]:
    lines = [str(verdict) for section in sections for verdict in section.verdicts]
    return ["\n".join(lines)] if lines else []


if __name__ == "__main__":
    sys.exit(main())
