"""The oracle finds what is wrong: each mistake of a pipeline, planted in a table, is named."""

from __future__ import annotations

import pytest

from tests.faults import oracle
from tests.faults.oracle import Claim, Obligation, Table, Verdict, judge
from tests.faults.rig import Rig

OWED = {
    "a": Obligation("organization", 10, b"{a}"),
    "b": Obligation("organization", 20, b"{b}"),
    "t": Obligation("tenant", 15, b"{t}"),
}
ROWS = (("a", b"{a}"), ("b", b"{b}"), ("t", b"{t}"))
CLAIMS = (Claim("organization", 0, 100, 200), Claim("tenant", 0, 100, 200))

DOUBLED = Table((*ROWS, ROWS[0]), (*ROWS, ROWS[0]), CLAIMS)


def table(rows: tuple[tuple[str, bytes], ...], claims: tuple[Claim, ...] = CLAIMS) -> Table:
    return Table(plain=rows, final=tuple(dict.fromkeys(rows)), claims=claims)


def test_a_table_that_holds_what_is_owed_is_clean() -> None:
    verdict = judge(OWED, table(ROWS))
    assert verdict == Verdict()
    assert not verdict.guilty


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        pytest.param(table(ROWS[1:]), Verdict(lost=("a",), unbacked=("a",)), id="lost, and claimed"),
        pytest.param(table(ROWS[1:], ()), Verdict(lost=("a",)), id="lost"),
        pytest.param(table((*ROWS, ("x", b"{x}"))), Verdict(invented=("x",)), id="invented"),
        pytest.param(table((*ROWS[1:], ("a", b"{A}"))), Verdict(altered=("a",)), id="altered"),
        pytest.param(DOUBLED, Verdict(doubled=("a",), doubled_plain=("a",)), id="doubled"),
    ],
)
def test_each_kind_of_guilt_is_named(found: Table, verdict: Verdict) -> None:
    assert judge(OWED, found) == verdict
    assert verdict.guilty


def test_a_double_that_final_hides_is_counted_and_no_guilt() -> None:
    verdict = judge(OWED, table((*ROWS, ROWS[0])))
    assert verdict == Verdict(doubled_plain=("a",))
    assert not verdict.guilty


def test_in_mid_run_only_what_the_ledger_claims_can_be_lost() -> None:
    """A window of the other lane, one beside the event, and one read before the event could be seen claim nothing."""
    beside = (Claim("organization", 11, 20, 200), Claim("tenant", 0, 100, 200))
    assert judge(OWED, table(ROWS[2:], beside), complete=False) == Verdict()
    claimed = (Claim("organization", 10, 20, 200),)
    assert judge(OWED, table(ROWS[2:], claimed), complete=False) == Verdict(lost=("a",), unbacked=("a",))
    assert judge(OWED, table(ROWS[2:], claimed), complete=False, issued_later={"a": 200}) == Verdict()


def test_a_verdict_shows_its_first_offenders() -> None:
    verdict = Verdict(lost=tuple("abcdefg"))
    assert str(verdict) == ("lost 7: a, b, c, d, e, …; doubled 0; doubled_plain 0; invented 0; altered 0; unbacked 0")


async def test_it_reads_what_is_in_a_real_table(any_rig: Rig) -> None:
    """Of each kind of database; a bare one is empty."""
    rig = any_rig
    assert oracle.read(rig.direct) == Table()
    result = await rig.run("run")
    assert result.code == 0, result.err
    found = oracle.read(rig.direct)
    assert dict(found.plain) == {event_id: owed.raw for event_id, owed in rig.obligations().items()}
    assert len(found.claims) > 0
    assert judge(rig.obligations(), found) == Verdict()
