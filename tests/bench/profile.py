"""Where the shipper's time goes: a flame graph, the functions with the most time of their own, and the cost by stage.

py-spy samples the process from outside, all its threads, and counts what is not waiting. Where others use the cores
too, it sees a thread that could run and does not. So shares are its own, and what they are shares of is the CPU time of
one more run without it.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.bench import corpus
from tests.bench.contenders import SHIPPER_ON, Place, Task
from tests.bench.files import CACHE, ROOT
from tests.bench.results import Figure
from tests.bench.rig import Rig, run

_RATE = 400
_FRAME = re.compile(r"(?P<name>.*) \((?P<file>[^()]*?)(:\d+)?\)")
# Waiting that looks like work from outside.
_IDLE = {"wait threading.py", "Condition.wait threading.py", "_worker thread.py", "EpollSelector.select selectors.py"}
_STAGE = re.compile(r"/shipper/(fetch|normalize|enrich|load|pipeline|model)\b")
# What the event loop and the driver's threads call has no stage above it. Both clients speak HTTP through aiohttp.
_LIBRARIES = {"/clickhouse_connect/": "load", "/maxminddb/": "enrich", "/aiohttp/": "aiohttp, called by the loop"}


def profile(rig: Rig, task: Task) -> str:
    """Run the shipper three times, twice of them under the profiler; returns the summary."""
    micros = Figure(task.events, [rig.measure(SHIPPER_ON, task)]).micros
    graph, stacks = CACHE / f"flame-{task.name}.svg", CACHE / f"stacks-{task.name}.txt"
    _record(rig, task, "flamegraph", graph)
    _record(rig, task, "raw", stacks)
    return f"{summary(stacks.read_text(), micros)}\n\nFlame graph: {graph}"


def _record(rig: Rig, task: Task, form: str, out: Path) -> None:
    archive = corpus.archive(task.events)
    api = rig.api(archive)
    api.set_latency(task.latency)
    spy = [str(Path(sys.executable).parent / "py-spy"), "record", "--format", form, "--output", str(out)]
    options = ["--rate", str(_RATE), "--full-filenames", "--subprocesses", "--threads", "--"]
    with rig.database() as database:
        place = Place(api.base_url, archive, rig.clickhouse, rig.native_port, database)
        rig.apply_schema(task, place)
        run([*spy, *options, *SHIPPER_ON.command(task, place)], SHIPPER_ON.environment(task, place))


def summary(stacks: str, micros: float, most: int = 40) -> str:
    """Of `frame;frame;… samples` lines: by stage and by function, how much of `micros` CPU microseconds per event."""
    own: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = [match for frame in stack.split(";") if (match := _FRAME.fullmatch(frame))]
        if not frames:
            continue
        leaf = frames[-1]
        if f"{leaf['name']} {Path(leaf['file']).name}" in _IDLE:
            continue
        own[f"{leaf['name']}  {_short(leaf['file'])}"] += int(samples)
        stages[_stage([frame["file"] for frame in frames])] += int(samples)
    each = micros / own.total()
    lines = [f"µs/event by stage (all {micros:.1f}; what a stage calls is its own)"]
    lines += [f"  {samples * each:6.2f}  {stage}" for stage, samples in stages.most_common()]
    lines += ["µs/event by function, its own time only"]
    lines += [f"  {samples * each:6.2f}  {name}" for name, samples in own.most_common(most)]
    return "\n".join(lines)


def _stage(files: Sequence[str]) -> str:
    if any(file.startswith("<frozen importlib") for file in files):
        return "imports"
    for file in reversed(files):
        if match := _STAGE.search(file):
            return match[1]
    libraries = (stage for file in reversed(files) for part, stage in _LIBRARIES.items() if part in file)
    return next(libraries, "the rest")


def _short(file: str) -> str:
    return re.sub(r".*/(site-packages|lib/python3\.\d+)/", "", file).removeprefix(f"{ROOT}/")
