"""Plans are functions of their seeds; a few seeds, run; and a loss that is found and can be repeated."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults import torture
from tests.faults.oracle import Obligation, Verdict
from tests.faults.plan import Fault, Plan
from tests.faults.rig import Rig, build_organization, midnight
from tests.faults.torture import Outcome

SEEDS = range(1, 9)


def test_a_seed_is_a_plan() -> None:
    """The same seed gives the same faults and the same events; another one gives others."""
    assert Plan.of(7) == Plan.of(7)
    assert len({str(Plan.of(seed)) for seed in range(100)}) == 100
    first, second = (build_organization(3, midnight()).events for _ in range(2))
    assert first == second


def test_two_hundred_seeds_plan_every_fault() -> None:
    plans = [Plan.of(seed) for seed in range(1, 201)]
    rounds = [one for plan in plans for one in plan.rounds]
    planned = {spoil.fault for one in rounds for spoil in one.spoils}
    planned |= {one.signal.fault for one in rounds if one.signal}
    shares = ("errors", "throttle", "reset", "cut", "documents", "empty", "repeat_cursor", "revoke_after")
    of_api = {name for one in rounds for name in shares if getattr(one.misbehaviour, name)}
    assert of_api == set(shares)
    assert planned == {fault for fault in Fault if fault.startswith(("ClickHouse", "shipper: SIG"))}
    assert any(one.two for one in rounds)
    assert any(one.late_events for one in rounds)
    assert any(one.disk_full for one in rounds)
    assert {plan.embedded for plan in plans} == {True, False}


def test_some_seeds_lose_and_double_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """What `make torture` does, for a few seeds: the command ends with 0 and prints the table."""
    code = torture.main(["--seed", str(SEEDS.start), "--runs", str(len(SEEDS)), "--jobs", "2"])
    out = capfd.readouterr().out
    assert code == 0, out
    assert f"{len(SEEDS)} runs in" in out
    assert "\n| 0 | 0 | " in out
    assert "FAILED" not in out


async def test_a_loss_is_found_and_told(embedded_rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that is owed and never shipped, in a window that the ledger claims: the run fails, and says how to
    repeat it."""
    owed = embedded_rig.obligations()
    lost = Obligation("organization", embedded_rig.since + 4000, b"{}")
    monkeypatch.setattr(Rig, "obligations", lambda _: {**owed, "lost": lost})
    # Only so that the planted loss is the only one: the events added on the way are not in the copy above.
    monkeypatch.setattr(Rig, "add_event", lambda _: "")
    plan = Plan(1, embedded=True, window="1d", batch_rows=20_000, concurrency=2, rounds=())
    outcome = await torture.torture(plan, embedded_rig)
    assert outcome.verdict == Verdict(lost=("lost",), unbacked=("lost",))
    assert outcome.failed
    told = torture._failure(outcome, 1234)
    assert "lost 1: lost" in told
    assert "python -m tests.faults.torture --seed 1 --anchor 1234" in told


def test_the_table_adds_up() -> None:
    outcomes = [
        Outcome(1, faults=Counter({Fault.API_CUT: 3, Fault.KILLED: 1}), codes=(-9, 0)),
        Outcome(2, Verdict(lost=("a",), doubled_plain=("b", "c")), Counter({Fault.API_CUT: 1}), (0,)),
    ]
    lines = torture.table(outcomes, 12.3).splitlines()
    assert f"| {Fault.API_CUT} | 4 | 2 |" in lines
    assert f"| {Fault.KILLED} | 1 | 1 |" in lines
    assert "| all | 5 | 2 |" in lines
    assert "2 runs in 12 s; exit codes under faults -9: 1, 0: 2" in lines
    assert "| 1 | 0 | 2 | 0 | 0 | 0 |" in lines
    assert lines[-1] == "Doubled in the plain table only, which FINAL hides: seeds 2"
