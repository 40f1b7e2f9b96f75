"""Backfill and replay against everybody, memory, and a run that has nothing to do."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tests.bench import corpus
from tests.bench.contenders import (
    CEILING,
    DLT,
    ELT,
    SDK,
    SHIPPER_NO_GEOIP,
    SHIPPER_ON,
    Contender,
    Place,
    Task,
    highest_rate,
)
from tests.bench.files import CACHE
from tests.bench.results import Cost, Figure, Section, Verdict, busiest_second, table
from tests.bench.rig import Rig, Void, run

Say = Callable[[str], None]

# Requests per second at an API with latency. Sixteen windows at 100 ms a page could make 160.
_RATE = 150.0
_MEBIBYTES = 150


@dataclass(frozen=True, slots=True)
class Options:
    """How often each is measured, and how large: 1.0 is all events."""

    runs: int
    scale: float

    def events(self, count: int) -> int:
        return max(1000, round(count * self.scale))


def _measured(rig: Rig, options: Options, say: Say, task: Task, contenders: Sequence[Contender]) -> dict[str, Figure]:
    """Every contender once, then every one again, so that what else the machine does meets all of them."""
    costs: dict[str, list[Cost]] = {contender.name: [] for contender in contenders}
    for number in range(options.runs):
        for contender in contenders:
            cost = rig.measure(contender, task)
            costs[contender.name].append(cost)
            figure = Figure(task.events, [cost])
            say(
                f"{task.name} {task.events:,}  {number + 1}/{options.runs}  {contender.name:16}"
                f"{figure.rate:9,.0f}/s  {figure.micros:6.1f} µs/event  {figure.mebibytes:4.0f} MiB"
            )
    return {name: Figure(task.events, found) for name, found in costs.items()}


def _as_data(figures: dict[str, Figure]) -> dict[str, object]:
    return {name: figure.as_dict() for name, figure in figures.items()}


def _faster(wanted: str, shipper: Figure, peer: Figure, times: float) -> Verdict:
    ratio = shipper.rate / peer.rate
    return Verdict(wanted, f"{ratio:.2f} times ({shipper.rate:,.0f}/s, {peer.rate:,.0f}/s)", ratio >= times)


def _table(title: str, contenders: Sequence[Contender], figures: dict[str, Figure], *, memory: bool = True) -> str:
    fastest = figures[SHIPPER_ON.name].rate
    rows = []
    for contender in contenders:
        figure = figures[contender.name]
        ratio = f"{fastest / figure.rate:.2f}"
        shown = f"{figure.mebibytes:.0f}" if memory and not contender.timed_inside else ""
        rows.append((contender.title, f"{figure.rate:,.0f}", ratio, f"{figure.micros:.1f}", shown))
    return table((title, "events/s", "shipper ÷ it", "CPU µs/event", "peak MiB"), rows)


def backfill(rig: Rig, options: Options, say: Say) -> Section:
    task = Task("backfill", "backfill", options.events(100_000))
    contenders = (SHIPPER_ON, SHIPPER_NO_GEOIP, SDK, DLT, ELT)
    figures = _measured(rig, options, say, task, contenders)
    shipper = figures[SHIPPER_ON.name]
    verdicts = (
        _faster("backfill: at least 5 times dlt", shipper, figures[DLT.name], 5),
        _faster("backfill: at least 8 times the SDK script", shipper, figures[SDK.name], 8),
        _faster("backfill: not slower than the SQL ELT", shipper, figures[ELT.name], 1),
        Verdict(
            "backfill: client CPU at most 22 µs per event", f"{shipper.micros:.1f} µs", passed=shipper.micros <= 22
        ),
    )
    title = f"backfill of {task.events:,} events, API without latency"
    return Section("backfill", _table(title, contenders, figures), verdicts, _as_data(figures))


def latency(rig: Rig, options: Options, say: Say) -> Section:
    rate = min(_RATE, highest_rate())
    settings = {"SHIPPER_CONCURRENCY": "16", "SHIPPER_REQUESTS_PER_SECOND": str(rate)}
    task = Task("latency", "backfill", options.events(20_000), 0.1, settings)
    contenders = (SHIPPER_ON, SDK, DLT, ELT)
    figures = _measured(rig, options, say, task, contenders)
    shipper = figures[SHIPPER_ON.name]
    busiest = max(busiest_second(one.asked) for one in shipper.runs)
    verdicts = (
        _faster("100 ms per page: at least 10 times the SDK script", shipper, figures[SDK.name], 10),
        Verdict(
            "100 ms per page: never more requests per second than configured",
            f"{busiest} in the busiest second, {rate:.0f} configured",
            # The request on either edge of a second belongs to it.
            busiest <= rate + 1,
        ),
    )
    title = f"backfill of {task.events:,} events, 100 ms per page, 16 windows"
    return Section("latency", _table(title, contenders, figures), verdicts, _as_data(figures))


def replay(rig: Rig, options: Options, say: Say) -> Section:
    task = Task("replay", "replay", options.events(200_000))
    contenders = (SHIPPER_ON, SHIPPER_NO_GEOIP, SDK, DLT, ELT, CEILING)
    figures = _measured(rig, options, say, task, contenders)
    shipper = figures[SHIPPER_ON.name]
    verdicts = (
        _faster("replay: at least 5 times dlt", shipper, figures[DLT.name], 5),
        _faster("replay: not slower than the SQL ELT", shipper, figures[ELT.name], 1),
        _faster("replay: at least 0.7 of the driver alone", shipper, figures[CEILING.name], 0.7),
    )
    title = f"replay of {task.events:,} events, NDJSON"
    return Section("replay", _table(title, contenders, figures), verdicts, _as_data(figures))


def memory(rig: Rig, options: Options, say: Say) -> Section:
    few, many = options.events(100_000), options.events(1_000_000)
    rows, verdicts, raw = [], [], {}
    for kind in ("backfill", "replay"):
        sizes = []
        for events in (few, many):
            figures = _measured(rig, options, say, Task(kind, kind, events), (SHIPPER_ON,))
            sizes.append(figures[SHIPPER_ON.name].mebibytes)
            raw[f"{kind}-{events}"] = _as_data(figures)
        rows.append((kind, *(f"{size:.0f}" for size in sizes)))
        figure = " and ".join(f"{size:.0f}" for size in sizes) + " MiB"
        verdicts += [
            Verdict(f"{kind}: peak memory at most {_MEBIBYTES} MiB", figure, max(sizes) <= _MEBIBYTES),
            Verdict(f"{kind}: within 10 % from {few:,} to {many:,} events", figure, max(sizes) <= 1.1 * min(sizes)),
        ]
    text = table(("peak memory of the shipper, MiB", f"{few:,} events", f"{many:,} events"), rows)
    return Section("memory", text, verdicts, raw)


def run_again(rig: Rig, options: Options, say: Say) -> Section:
    """A run that finds nothing new, and what it costs only to import what the SDK script imports."""
    now = int(time.time())
    archive = CACHE / f"now-{now}.ndjson"
    corpus.write_now(archive, now)
    imports = [sys.executable, "-c", "import openai, clickhouse_connect"]
    try:
        with rig.database() as database:
            place = Place(rig.api(archive).base_url, archive, rig.clickhouse, rig.native_port, database)
            task = Task("run", "run")
            ships = {one.name: partial(_nothing_new, one, task, place) for one in (SHIPPER_ON, SHIPPER_NO_GEOIP)}
            run(SHIPPER_ON.command(task, place), SHIPPER_ON.environment(task, place))
            costs: dict[str, list[Cost]] = {"import": [], **{name: [] for name in ships}}
            for number in range(options.runs):
                costs["import"].append(run(imports, SDK.environment(task, place)))
                for name, ship in ships.items():
                    costs[name].append(ship())
                said = ", ".join(f"{name} {found[-1].cpu * 1000:.0f} ms CPU" for name, found in costs.items())
                say(f"run with nothing new  {number + 1}/{options.runs}  {said}")
    finally:
        archive.unlink()
    figures = {name: Figure(0, found) for name, found in costs.items()}
    titles = {
        "import": 'python -c "import openai, clickhouse_connect"',
        SHIPPER_ON.name: SHIPPER_ON.title,
        SHIPPER_NO_GEOIP.name: SHIPPER_NO_GEOIP.title,
    }
    rows = [
        (titles[name], f"{one.cpu * 1000:.0f}", f"{one.wall * 1000:.0f}", f"{one.mebibytes:.0f}")
        for name, one in figures.items()
    ]
    mine, theirs = figures[SHIPPER_ON.name].cpu * 1000, figures["import"].cpu * 1000
    verdicts = (
        Verdict(
            "run with nothing new: no more CPU than the imports", f"{mine:.0f} ms, {theirs:.0f} ms", mine <= theirs
        ),
    )
    return Section(
        "run", table(("run with nothing new", "CPU ms", "ms", "peak MiB"), rows), verdicts, _as_data(figures)
    )


def _nothing_new(contender: Contender, task: Task, place: Place) -> Cost:
    cost = run(contender.command(task, place), contender.environment(task, place))
    lanes = json.loads(cost.output)["lanes"]
    if any(lane["inserted"] for lane in lanes) or not any(lane["already_there"] for lane in lanes):
        raise Void(f"expected a run that reads again and finds nothing new, got {lanes}")
    return cost
