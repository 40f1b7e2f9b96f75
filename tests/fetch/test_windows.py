"""Planning: what is read, and that what is planned plus what is covered leaves no moment out."""

from __future__ import annotations

import random

import pytest

from shipper.config import Settings
from shipper.fetch.windows import DAY, Coverage, Schedule, cut, merge, midnight, plan_backfill, plan_run, subtract
from shipper.model import Window

HOUR = 3600
NOON = 1_763_640_000 - 1_763_640_000 % DAY + DAY // 2
SCHEDULE = Schedule(lookback=30 * DAY, overlap=HOUR, resweep=2 * DAY, window=DAY)


def seconds(windows: list[Window]) -> set[int]:
    return {second for window in windows for second in range(window.start, window.end)}


def known(drained: list[Window], *, read_at: int = NOON - 60, **parts: list[Window]) -> Coverage:
    """What the ledger says when all of `drained` was read at `read_at`."""
    late_enough = (Window(window.start, max(window.start, min(window.end, read_at - HOUR))) for window in drained)
    return Coverage(drained, **{"overlapped": list(late_enough), **parts})


def test_the_first_run_reads_the_lookback_newest_first() -> None:
    """With an empty ledger the plan is the lookback, cut at UTC midnights, newest window first."""
    plan = plan_run(Coverage(), NOON, SCHEDULE)
    assert plan[0] == Window(midnight(NOON), NOON)
    assert plan[-1] == Window(NOON - 30 * DAY, midnight(NOON) - 29 * DAY)
    assert merge(plan) == [Window(NOON - 30 * DAY, NOON)]
    assert plan == sorted(plan, reverse=True)


def test_a_run_after_a_complete_one_reads_only_the_overlap() -> None:
    """Covered and swept up to a minute ago: one window, from the overlap before the newest covered moment to now."""
    covered = [Window(NOON - 30 * DAY, NOON - 60)]
    coverage = known(covered, drained_today=covered)
    assert plan_run(coverage, NOON, SCHEDULE) == [Window(NOON - 60 - HOUR, NOON)]


def test_the_first_run_of_a_day_sweeps_unsettled_days_again_once() -> None:
    """What is not settled and was not drained since midnight is read again, and only that."""
    covered = [Window(NOON - 30 * DAY, NOON - 60)]
    today = midnight(NOON)
    settled = [Window(NOON - 30 * DAY, today - 3 * DAY)]
    plan = plan_run(known(covered, settled=settled), NOON, SCHEDULE)
    assert merge(plan) == [Window(today - 3 * DAY, today), Window(NOON - 60 - HOUR, NOON)]
    half = [Window(today - DAY, today)]
    assert merge(plan_run(known(covered, drained_today=half, settled=settled), NOON, SCHEDULE)) == [
        Window(today - 3 * DAY, today - DAY),
        Window(NOON - 60 - HOUR, NOON),
    ]


def test_an_outage_does_not_shorten_the_resweep() -> None:
    """Nothing ran for a week: days read too early back then are still swept, however old they are now."""
    covered = [Window(NOON - 30 * DAY, NOON - 7 * DAY)]
    settled = [Window(NOON - 30 * DAY, NOON - 9 * DAY)]
    plan = plan_run(known(covered, read_at=NOON - 7 * DAY, settled=settled), NOON, SCHEDULE)
    assert merge(plan) == [Window(NOON - 9 * DAY, NOON)]


def test_a_resweep_of_zero_is_off() -> None:
    covered = [Window(NOON - 30 * DAY, NOON - 60)]
    off = Schedule(lookback=30 * DAY, overlap=HOUR, resweep=0, window=DAY)
    assert plan_run(known(covered), NOON, off) == [Window(NOON - 60 - HOUR, NOON)]


def test_a_gap_is_work_however_old_it_is() -> None:
    """A hole between covered windows is read, also when it lies further back than the lookback."""
    covered = [Window(NOON - 90 * DAY, NOON - 80 * DAY), Window(NOON - 70 * DAY, NOON)]
    plan = plan_run(known(covered, read_at=NOON, settled=covered), NOON, SCHEDULE)
    assert merge(plan) == [Window(NOON - 80 * DAY, NOON - 70 * DAY), Window(NOON - HOUR, NOON)]


def test_an_interrupted_first_run_goes_on_where_it_was() -> None:
    """Newest first: a killed first run covered the last days; the next plan is the rest of the lookback."""
    covered = [Window(NOON - 2 * DAY, NOON)]
    plan = plan_run(known(covered, read_at=NOON, drained_today=covered), NOON, SCHEDULE)
    assert plan[-1].start == NOON - 30 * DAY
    assert subtract(Window(NOON - 30 * DAY, NOON), [*plan, *covered]) == []


def test_a_clock_that_stepped_back_still_reads_the_overlap_before_now() -> None:
    """The ledger reaches past `now`: the plan ends at now, starts an overlap earlier and claims nothing later."""
    covered = [Window(NOON - 30 * DAY, NOON + 2 * HOUR)]
    coverage = known(covered, read_at=NOON + 2 * HOUR, settled=covered)
    assert plan_run(coverage, NOON, SCHEDULE) == [Window(NOON - HOUR, NOON)]


def test_what_was_read_too_early_is_read_again_although_newer_moments_are_covered() -> None:
    """The run of 08:00 was the last to read the hour before it. A run of 11:00 ended after its newest window, or a
    backfill read that hour: the hour before 08:00 is planned all the same, with the gap and the newest overlap.
    """
    eight, eleven = NOON - 4 * HOUR, NOON - HOUR
    covered = [Window(NOON - 30 * DAY, eight), Window(eleven - HOUR // 2, eleven)]
    overlapped = [Window(NOON - 30 * DAY, eight - HOUR)]
    off = Schedule(lookback=30 * DAY, overlap=HOUR, resweep=0, window=HOUR)
    plan = plan_run(Coverage(covered, overlapped=overlapped), NOON, off)
    assert merge(plan) == [Window(eight - HOUR, NOON)]
    gap_filled = [Window(NOON - 30 * DAY, eleven)]
    assert merge(plan_run(Coverage(gap_filled, overlapped=overlapped), NOON, off)) == [Window(eight - HOUR, NOON)]
    behind = [*overlapped, Window(eight, eleven - HOUR)]
    assert merge(plan_run(Coverage(gap_filled, overlapped=behind), NOON, off)) == [
        Window(eight - HOUR, eight),
        Window(eleven - HOUR, NOON),
    ]


def test_a_backfill_reads_what_the_ledger_lacks() -> None:
    wanted = Window(NOON - 5 * DAY, NOON)
    covered = [Window(NOON - 3 * DAY, NOON - 2 * DAY)]
    plan = plan_backfill(wanted, covered, DAY)
    assert merge(plan) == [Window(NOON - 5 * DAY, NOON - 3 * DAY), Window(NOON - 2 * DAY, NOON)]
    assert plan_backfill(wanted, [wanted], DAY) == []


def test_cut_ends_windows_on_a_fixed_grid() -> None:
    assert cut([Window(5, 25)], 10) == [Window(20, 25), Window(10, 20), Window(5, 10)]
    assert cut([Window(5, 5)], 10) == []


@pytest.mark.parametrize("seed", range(200))
def test_plans_and_coverage_together_leave_no_moment_out(seed: int) -> None:
    """Against a set of single seconds: gaps and overlap are all planned, and windows never overlap."""
    rng = random.Random(seed)
    now = 500 + rng.randrange(400)

    def some() -> list[Window]:
        starts = [rng.randrange(1000) for _ in range(rng.randrange(5))]
        return [Window(start, start + rng.randrange(200)) for start in starts]

    covered = [window for window in some() if window.seconds]
    schedule = Schedule(lookback=300, overlap=50, resweep=0, window=rng.randrange(1, 100))
    overlapped = [part for window in covered for part in subtract(window, some())]
    plan = plan_run(Coverage(covered, some(), overlapped, some()), now, schedule)
    oldest = min([now - 300, *(window.start for window in covered)])
    assert set(range(oldest, now)) <= seconds(plan) | seconds(overlapped)
    if covered:
        newest = min(now, max(window.end for window in covered))
        assert set(range(max(newest - 50, oldest), now)) <= seconds(plan)
    assert sum(window.seconds for window in plan) == len(seconds(plan))
    assert all(0 < window.seconds <= schedule.window and window.end <= now for window in plan)


def test_schedule_comes_from_the_settings_in_seconds() -> None:
    assert Schedule.from_settings(Settings()) == SCHEDULE


def test_a_window_does_not_end_before_it_starts() -> None:
    with pytest.raises(ValueError, match="ends at or after its start"):
        Window(2, 1)
