"""The pack of detection rules over a large table, in windows of five minutes: `python -m tests.bench.pack`.

Every rule is asked, as `shipper detect` asks it when an event of its types is in the window. The table is the one of
`queries`: events of 90 days that were received as they happened.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from statistics import median

from shipper.detect.engine import FOLDED
from shipper.detect.rule import PACK, Rule, load_folders
from tests.bench.queries import CASES, ROWS, WINDOW, Case, Store, fill
from tests.bench.results import Section, Verdict, table
from tests.bench.rig import Rig
from tests.bench.shipping import Options, Say

_NOW = CASES[0]


def _bound(rule: Rule, end: int) -> dict[str, object]:
    values = {name: _spelled(value) for name, value in rule.values.items()}
    return {**values, "from": end - WINDOW, "to": end, "bucket": rule.bucket}


def _spelled(value: object) -> object:
    """A parameter as ClickHouse reads it from an address."""
    if not isinstance(value, list):
        return value
    quoted = (str(item).replace("\\", "\\\\").replace("'", "\\'") for item in value)
    return "[" + ",".join(f"'{item}'" for item in quoted) + "]"


def time_rules(store: Store, case: Case, runs: int) -> dict[str, list[float]]:
    """Seconds of each rule over so many windows, the first of which is left out: it finds the caches empty."""
    found: dict[str, list[float]] = {}
    for rule in load_folders([PACK]):
        ends = [case.end - number * WINDOW for number in range(runs + 1)]
        found[rule.id] = [store.ask(FOLDED.format(sql=rule.sql), _bound(rule, end)).seconds for end in ends][1:]
    return found


def measure(rig: Rig, options: Options, say: Say) -> Section:
    """The part of the benchmark."""
    rows = options.events(ROWS)
    with rig.database() as name:
        store = Store(rig.clickhouse, name)
        say(f"rules    filling {rows:,} rows")
        fill(store, rows, backfilled=False)
        found = time_rules(store, _NOW, options.runs)
    return _section(rows, found)


def _section(rows: int, found: Mapping[str, Sequence[float]]) -> Section:
    medians = {rule: median(seconds) for rule, seconds in found.items()}
    slowest = max(medians, key=lambda rule: medians[rule])
    whole = sum(medians.values())
    verdicts = [
        Verdict(
            f"Each of {len(medians)} rules over {rows:,} rows, a window of five minutes: under 1 s",
            f"at most {medians[slowest] * 1000:.0f} ms ({slowest})",
            medians[slowest] < 1,
        ),
        Verdict("All of them, one after the other: under 10 s", f"{whole:.1f} s", whole < 10),
    ]
    ranked = sorted(medians.items(), key=lambda pair: -pair[1])
    shown = table(["rule", "ms"], ([rule, f"{seconds * 1000:.0f}"] for rule, seconds in ranked))
    return Section("rules", shown, verdicts, {rule: list(seconds) for rule, seconds in found.items()})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pack", description="Measure the rules alone.")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args(arguments)
    with Rig() as rig:
        options = Options(given.runs, given.rows / ROWS)
        section = measure(rig, options, lambda line: print(line, file=sys.stderr, flush=True))
    print("\n".join([section.text, "", *map(str, section.verdicts)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
