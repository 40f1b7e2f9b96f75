"""Many runs under faults, each a function of its seed, and one table of what came of them.

    python -m tests.faults.torture --runs 200            # seeds 1 to 200
    python -m tests.faults.torture --seed 17             # one of them again

Exit code 1 when anything was lost, doubled under FINAL, invented or altered, when the ledger claimed what was not
there, or when a process hung or ended as a bug.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING

import pytest

from tests.clickhouse_server import Server
from tests.faults.attack import Attack
from tests.faults.oracle import Verdict
from tests.faults.plan import Fault, Plan
from tests.faults.rig import Ended, Rig, midnight, open_rig

if TYPE_CHECKING:
    from multiprocessing import Queue

# What a process under these faults may end with. 70 is a bug, whatever was done to it. A SIGTERM that comes before the
# first line of ours or after the last ends it as it ends any process.
_ALLOWED = {0, 69, 75, 77, 78, -signal.SIGKILL, -signal.SIGTERM}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one seed. `trouble` says what else went wrong: a hang, a bug, a process that never recovers."""

    seed: int
    verdict: Verdict = Verdict()  # noqa: RUF009 - frozen
    faults: Counter[Fault] = field(default_factory=Counter)
    codes: tuple[int, ...] = ()
    trouble: str = ""

    @property
    def failed(self) -> bool:
        return self.verdict.guilty or bool(self.trouble)


async def torture(plan: Plan, rig: Rig) -> Outcome:
    """Do to the rig what the plan says, let it recover, and judge."""
    rig.settings |= {
        "SHIPPER_WINDOW": plan.window,
        "SHIPPER_BATCH_ROWS": str(plan.batch_rows),
        "SHIPPER_CONCURRENCY": str(plan.concurrency),
    }
    faults: Counter[Fault] = Counter()
    codes: list[int] = []
    for number, one in enumerate(plan.rounds, start=1):
        attack = Attack(rig, one)
        results = await attack.run()
        faults += attack.done()
        codes += [result.code for result in results]
        if trouble := _trouble(results):
            return Outcome(plan.seed, Verdict(), faults, tuple(codes), f"round {number}: {trouble}")
        verdict = await rig.verdict(complete=False)
        if verdict.guilty:
            return Outcome(plan.seed, verdict, faults, tuple(codes), f"round {number}: before anything was healed")
    try:
        await rig.ship_to_the_end()
    except (AssertionError, pytest.fail.Exception) as error:
        return Outcome(plan.seed, await rig.verdict(), faults, tuple(codes), str(error))
    return Outcome(plan.seed, await rig.verdict(), faults, tuple(codes))


def _trouble(results: Iterable[Ended]) -> str:
    for result in results:
        if result.code not in _ALLOWED or "Traceback" in result.err:
            return f"exit code {result.code}\n{result.err[-3000:]}"
    return ""


async def one(seed: int, anchor: int, directory: Path, server: Server) -> Outcome:
    plan = Plan.of(seed)
    try:
        disk = any(one.disk_full for one in plan.rounds)
        over = None if plan.embedded else server
        async with open_rig(directory, over, seed=seed % 20, anchor=anchor, disk=disk) as rig:
            return await torture(plan, rig)
    except Exception:  # noqa: BLE001 - one seed that breaks the harness must not hide the others
        return Outcome(seed, trouble=traceback.format_exc(limit=-6))


def _work(seeds: Queue[int | None], outcomes: Queue[Outcome], anchor: int) -> None:
    """A worker: a server of its own, seeds until there are none left."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="torture-", ignore_cleanup_errors=True) as directory:
        data = Path(directory) / "server"
        data.mkdir()
        with Server(data) as server:
            while (seed := seeds.get()) is not None:
                outcomes.put(asyncio.run(one(seed, anchor, Path(directory), server)))


def outcomes(seeds: Sequence[int], *, anchor: int, jobs: int) -> Iterator[Outcome]:
    """The outcome of each seed, as they come."""
    context = multiprocessing.get_context("spawn")
    todo: Queue[int | None] = context.Queue()
    done: Queue[Outcome] = context.Queue()
    for seed in (*seeds, *(None,) * jobs):
        todo.put(seed)
    workers = [context.Process(target=_work, args=(todo, done, anchor)) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        for _ in seeds:
            yield _next(done, workers)
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _next(done: Queue[Outcome], workers: Sequence[multiprocessing.process.BaseProcess]) -> Outcome:
    while True:
        try:
            return done.get(timeout=1)
        except Empty:
            if not any(worker.is_alive() for worker in workers):
                raise SystemExit("error: the workers ended before their work did") from None


def table(outcomes: Sequence[Outcome], seconds: float) -> str:
    """The table for people: what was done, and what came of it."""
    faults: Counter[Fault] = Counter()
    runs: Counter[Fault] = Counter()
    for outcome in outcomes:
        faults += outcome.faults
        runs.update(outcome.faults.keys())
    lines = ["| fault | times | runs with it |", "|---|---:|---:|"]
    lines += [f"| {fault} | {faults[fault]:,} | {runs[fault]:,} |" for fault in Fault]
    lines.append(f"| all | {faults.total():,} | {sum(bool(outcome.faults) for outcome in outcomes):,} |")
    codes = Counter(code for outcome in outcomes for code in outcome.codes)
    ends = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
    verdicts = [outcome.verdict for outcome in outcomes]
    lines += ["", f"{len(outcomes)} runs in {seconds:.0f} s; exit codes under faults {ends}", ""]
    lines += ["| lost | doubled under FINAL | doubled in the plain table | invented | altered | claimed, not there |"]
    lines += ["|---:|---:|---:|---:|---:|---:|"]
    names = ("lost", "doubled", "doubled_plain", "invented", "altered", "unbacked")
    counts = [sum(len(getattr(verdict, name)) for verdict in verdicts) for name in names]
    lines.append("| " + " | ".join(str(count) for count in counts) + " |")
    plain = [outcome.seed for outcome in outcomes if outcome.verdict.doubled_plain]
    if plain:
        lines += ["", f"Doubled in the plain table only, which FINAL hides: seeds {', '.join(map(str, sorted(plain)))}"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.torture", description="Torture the shipper.")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--jobs", type=int, default=(os.cpu_count() or 1) + 1, help="runs at the same time")
    parser.add_argument("--anchor", type=int, default=midnight(), help="where the events end, Unix seconds")
    given = parser.parse_args(arguments)
    seeds = range(given.seed, given.seed + given.runs)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    begun = time.monotonic()
    results = []
    for outcome in outcomes(seeds, anchor=given.anchor, jobs=min(given.jobs, given.runs)):
        results.append(outcome)
        if outcome.failed:
            print(_failure(outcome, given.anchor), flush=True)
        elif sys.stderr.isatty() or len(results) % 20 == 0:
            print(f"{len(results)} of {given.runs} runs", file=sys.stderr, flush=True)
    print(table(results, time.monotonic() - begun))
    return int(any(outcome.failed for outcome in results))


def _failure(outcome: Outcome, anchor: int) -> str:
    return (
        f"FAILED seed {outcome.seed}: {outcome.verdict}\n{outcome.trouble}\n"
        f"exit codes {list(outcome.codes)}; {dict(outcome.faults)}\n{Plan.of(outcome.seed)}\n"
        f"again:  python -m tests.faults.torture --seed {outcome.seed} --anchor {anchor}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
