"""What the benchmark makes of its figures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench.profile import summary
from tests.bench.results import Cost, Figure, Section, Verdict, as_markdown, busiest_second, table
from tests.bench.rig import Void, run


@pytest.mark.parametrize(
    ("moments", "most"), [((), 0), ((5.0,), 1), ((0.0, 0.5, 0.99, 1.0, 1.2), 4), ((3.0, 1.0, 2.0), 1)]
)
def test_the_busiest_second_may_lie_anywhere(moments: tuple[float, ...], most: int) -> None:
    """A stretch holds its first moment and not the one a second later."""
    assert busiest_second(moments) == most


def test_figures_are_medians_each_of_its_own() -> None:
    runs = [Cost(3.0, 1.0, 30 << 20), Cost(1.0, 2.0, 20 << 20), Cost(2.0, 9.0, 10 << 20)]
    figure = Figure(1000, runs)
    assert (figure.rate, figure.micros, figure.mebibytes) == (500.0, 2000.0, 20.0)


def test_the_readme_gets_tables_and_what_was_wanted() -> None:
    verdicts = (Verdict("fast", "9/s", passed=True), Verdict("small", "9 MiB", passed=False))
    section = Section("backfill", table(("a", "b"), [("x", "10"), ("yy", "2")]), verdicts, None)
    assert as_markdown("Medians.", [section]) == (
        "Medians.\n\n"
        "| a  |  b |\n| -- | -: |\n| x  | 10 |\n| yy |  2 |\n\n"
        "| wanted | measured |     |\n| ------ | -------: | --: |\n"
        "| fast   |      9/s | yes |\n| small  |    9 MiB |  no |"
    )


def test_a_profile_is_summed_by_stage_and_by_function() -> None:
    """A library's time belongs to the stage that called it; waiting is left out, and imports are by themselves."""
    stacks = (
        "main (/a/shipper/cli/ship.py:1);drain (/a/shipper/fetch/client.py:2);send (/lib/python3.11/socket.py:3) 300\n"
        "main (/a/shipper/cli/ship.py:1);_row (/a/shipper/normalize/events.py:9) 100\n"
        "boot (threading.py:1);write (/lib/clickhouse_connect/string.py:7) 50\n"
        "main (/a/shipper/fetch/client.py:1);load (<frozen importlib._bootstrap>:5) 50\n"
        "boot (threading.py:1);wait (/usr/lib/python3.11/threading.py:5) 900\n"
    )
    assert summary(stacks, 50.0) == (
        "µs/event by stage (all 50.0; what a stage calls is its own)\n"
        "   30.00  fetch\n   10.00  normalize\n    5.00  load\n    5.00  imports\n"
        "µs/event by function, its own time only\n"
        "   30.00  send  socket.py\n   10.00  _row  /a/shipper/normalize/events.py\n"
        "    5.00  write  /lib/clickhouse_connect/string.py\n    5.00  load  <frozen importlib._bootstrap>"
    )


def test_a_process_is_measured_alone_and_one_that_fails_is_void(tmp_path: Path) -> None:
    """Memory that this process holds is not counted into the child's."""
    held = bytearray(200 << 20)
    held[::4096] = b"x" * len(held[::4096])
    cost = run([sys.executable, "-S", "-c", "print(sum(range(1000)))"], {})
    assert cost.output == "499500\n"
    assert 0 < cost.cpu < 60
    assert 1 << 20 < cost.rss < 100 << 20
    with pytest.raises(Void, match="exit code 3\nsorry"):
        run([sys.executable, "-S", "-c", "print('sorry'); raise SystemExit(3)"], {})
    with pytest.raises(Void, match="exit code"):
        run([str(tmp_path / "missing")], {})
