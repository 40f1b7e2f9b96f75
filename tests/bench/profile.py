"""Where the shipper's time goes: a flame graph, the functions with the most time of their own, and the cost by stage.

py-spy samples the process from outside, all its threads, and counts what is not waiting.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

from tests.bench import corpus
from tests.bench.contenders import SHIPPER_ON, Place, Task
from tests.bench.files import CACHE, ROOT
from tests.bench.rig import Rig, run

_RATE = 400
_FRAME = re.compile(r"(?P<name>.*) \((?P<file>[^()]*?)(:\d+)?\)")
# Waiting that looks like work from outside.
_IDLE = {"wait threading.py", "Condition.wait threading.py", "_worker thread.py", "EpollSelector.select selectors.py"}
_STAGE = re.compile(r"/shipper/(fetch|normalize|enrich|load|pipeline|run|cli|model)\b")


def profile(rig: Rig, task: Task) -> str:
    """Run the shipper twice under the profiler; returns the summary. The flame graph is in `.cache/bench/`."""
    graph, stacks = CACHE / f"flame-{task.name}.svg", CACHE / f"stacks-{task.name}.txt"
    _record(rig, task, "flamegraph", graph)
    _record(rig, task, "raw", stacks)
    return f"{summary(stacks.read_text(), task.events)}\n\nFlame graph: {graph}"


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


def summary(stacks: str, events: int, most: int = 40) -> str:
    """Of `frame;frame;… samples` lines: microseconds per event, by stage and by function."""
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
        inside = (match[1] for frame in reversed(frames) if (match := _STAGE.search(frame["file"])))
        stages[next(inside, "start-up and libraries' threads")] += int(samples)
    micros = 1e6 / _RATE / events
    lines = [f"µs/event by stage (all {own.total() * micros:.1f}; what a stage calls is its own)"]
    lines += [f"  {samples * micros:6.2f}  {stage}" for stage, samples in stages.most_common()]
    lines += ["µs/event by function, its own time only"]
    lines += [f"  {samples * micros:6.2f}  {name}" for name, samples in own.most_common(most)]
    return "\n".join(lines)


def _short(file: str) -> str:
    return re.sub(r".*/(site-packages|lib/python3\.\d+)/", "", file).removeprefix(f"{ROOT}/")
