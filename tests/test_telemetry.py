"""The run report: its sums, what it may claim, and what it prints."""

from __future__ import annotations

import pytest

from shipper.cli.render import print_hints, print_report
from shipper.errors import AccountingError
from shipper.model import Lane, RunID, Source, SourceID, WorkspaceID
from shipper.telemetry import LaneReport, RunReport, Status

SOURCE = Source(WorkspaceID("w"), SourceID("s"))


def report(status: Status, received: int, inserted: int, there: int = 0, dead: int = 0, windows: int = 0) -> RunReport:  # noqa: PLR0917
    lane = LaneReport(SOURCE, Lane.ORGANIZATION, received, inserted, there, dead, status=status, windows=windows)
    return RunReport(RunID("r"), "run", started=1.0, finished=2.0, lanes=[lane])


@pytest.mark.parametrize("status", ["ok", "refused"])
@pytest.mark.parametrize("inserted", [6, 8])
def test_a_lane_that_came_to_its_end_accounts_for_every_event(status: Status, inserted: int) -> None:
    """One too few and one too many are both an error, which says all four numbers."""
    with pytest.raises(AccountingError) as caught:
        report(status, 10, inserted, 2, 1).check()
    assert str(caught.value) == (
        f"s/organization: received 10 events, accounted for {inserted + 3} "
        f"(inserted {inserted}, already there 2, dead-lettered 1)"
    )
    report(status, 10, 7, 2, 1).check()


def test_a_lane_whose_accounting_breaks_has_failed() -> None:
    """The run log says so, with the numbers; the other lanes stay what they were."""
    both = report("ok", 10, 9)
    both.lanes.append(LaneReport(SOURCE, Lane.TENANT, 1, 1))
    with pytest.raises(AccountingError):
        both.check()
    assert [(lane.status, "received 10" in lane.error) for lane in both.lanes] == [("failed", True), ("ok", False)]


@pytest.mark.parametrize("status", ["failed", "stopped"])
def test_a_lane_that_did_not_may_owe_events_and_never_claims_more(status: Status) -> None:
    report(status, 10, 4, 2, 1).check()
    report(status, 10, 10).check()
    with pytest.raises(AccountingError):
        report(status, 10, 11).check()


def test_what_is_not_acknowledged_is_part_of_the_report() -> None:
    """In the data, with the flag that the lane is not balanced."""
    [lane] = report("stopped", 10, 4, 2, 1).as_dict()["lanes"]
    assert (lane["unacknowledged"], lane["balanced"], lane["status"]) == (3, False, "stopped")


@pytest.mark.parametrize(
    ("given", "last"),
    [
        (report("ok", 10, 7, 2, 1, windows=1), "received 10 = inserted 7 + already there 2 + dead-lettered 1"),
        (
            report("stopped", 10, 4, 2, 1, windows=1),
            "received 10 = inserted 4 + already there 2 + dead-lettered 1 + not acknowledged 3 (run it again)",
        ),
        (report("ok", 0, 0), "Nothing to read: the ledger has all of it. --resweep reads it again."),
        (report("failed", 0, 0), "received 0 = inserted 0 + already there 0 + dead-lettered 0"),
        (RunReport(RunID("r"), "run"), "received 0 = inserted 0 + already there 0 + dead-lettered 0"),
    ],
    ids=["closed", "open", "nothing to read", "nothing read", "no lane"],
)
def test_the_printed_sum_closes_and_nothing_else_is_claimed(
    capsys: pytest.CaptureFixture[str], given: RunReport, last: str
) -> None:
    """What was not acknowledged is a term of it; "nothing to read" is said only when every lane came to its end."""
    print_report(given, as_json=False)
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_hints_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    print_hints(["look there"])
    assert capsys.readouterr() == ("", "hint:  look there\n")
