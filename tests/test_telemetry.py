"""The run report: its sums, what it may claim, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from shipper.cli.render import print_hints, print_report
from shipper.errors import AccountingError
from shipper.model import Lane, RunID, Source, SourceID, WorkspaceID
from shipper.telemetry import LaneReport, RunReport, Status, configure_logging, logger
from tests.secrets_scan import canary

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


@pytest.fixture
def logs() -> Iterator[None]:
    """The logger is the process's: other tests find it as it was."""
    yield
    configure_logging("json", "info")


@pytest.mark.usefixtures("logs")
def test_a_log_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    """Text that no encoding can write, and what JSON has no word for, included."""
    configure_logging("json")
    logger().info("something happened", count=1, where=Path("a\nb"), text="\ud800\n", lane=Lane.TENANT, none=None)
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    entry = json.loads(line)
    assert datetime.fromisoformat(entry.pop("timestamp")).tzinfo is not None
    assert entry == {
        "event": "something happened",
        "level": "info",
        "count": 1,
        "where": repr(Path("a\nb")),
        "text": "\ud800\n",
        "lane": "tenant",
        "none": None,
    }
    assert out == ""


@pytest.mark.usefixtures("logs")
def test_a_log_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """A value that holds blanks or a new line cannot pass for another field or line."""
    configure_logging("text")
    logger().warning("look", word="one", words="two words", lines="a\nlevel=error", number=3)
    [line] = capsys.readouterr().err.splitlines()
    assert line.partition(" ")[2] == r"[warning] look word=one words='two words' lines='a\nlevel=error' number=3"


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_a_level_leaves_out_what_is_below_it(level: str, told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json", level)
    log = logger()
    for write in (log.debug, log.info, log.warning, log.error):
        write("x")
    assert [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()] == told


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_shows_no_values(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines of the code and the error, and no local variable: it may be a key."""
    configure_logging(log_format)
    secret = canary("traceback")
    try:
        secret.index("nowhere")
    except ValueError:
        logger().exception("unexpected error", source="s")
    err = capsys.readouterr().err
    assert "ValueError: substring not found" in err
    assert 'secret.index("nowhere")'.replace('"', r"\"" if log_format == "json" else '"') in err
    assert secret not in err
    assert len(err.splitlines()) == 1 or log_format == "text"
