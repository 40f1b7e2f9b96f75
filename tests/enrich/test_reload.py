"""Databases and lists that are replaced while they are in use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import maxminddb
import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from shipper.config import ListSettings, Settings
from shipper.enrich.contract import Enrichment
from shipper.enrich.geoip import TRY_AGAIN_AFTER, GeoIP, open_geoip
from shipper.enrich.geoip import database as geoip_database
from shipper.enrich.geoip.copies import PrivateCopy
from shipper.enrich.geoip.database import open_database
from shipper.enrich.geoip.trial import Verdict
from shipper.enrich.lists import Lists, open_lists
from shipper.enrich.rules import read_rules
from shipper.telemetry import Lookups
from tests.enrich.damage import IP, NOT_A_DATABASE, crashing, unreadable, write_city
from tests.enrich.rows import make_row

Damage = Callable[[bytes], bytes]


class Trials:
    """Stands in for the child processes: a trial ends when the test says how."""

    def __init__(self) -> None:
        self.answer: Verdict | None = None
        self.begun = 0
        self.open = 0

    def __call__(self, copy: PrivateCopy) -> Trials:
        self.begun += 1
        self.open += 1
        return self

    def verdict(self) -> Verdict | None:
        return self.answer

    def close(self) -> None:
        self.open -= 1


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    stand_in = Trials()
    monkeypatch.setattr(geoip_database, "Trial", stand_in)
    return stand_in


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_city(tmp_path / "city.mmdb", "Paris")


@pytest.fixture
def geoip(path: Path) -> Iterator[GeoIP]:
    opened = open_geoip(Settings(geoip_databases=(path,)))
    yield opened
    opened.close()


def city(geoip: GeoIP) -> str:
    row = make_row(IP)
    geoip.enrich([row])
    return row.place.city


def in_place(path: Path, content: bytes) -> None:
    """As `cp` writes: the same file, other bytes. The time moves on, as it does between two downloads."""
    modified = path.stat().st_mtime
    path.write_bytes(content)
    os.utime(path, (modified + 10, modified + 10))


def by_rename(path: Path, content: bytes) -> None:
    """As geoipupdate does it."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


def other(path: Path, name: str = "Lyon") -> bytes:
    return write_city(path.with_name("other.mmdb"), name).read_bytes()


def look(enrichment: Enrichment, times: int = 2) -> list[EventDict]:
    """Refresh a few times, as a run does once a second, and return what was logged."""
    with capture_logs() as logs:
        for _ in range(times):
            enrichment.refresh()
    return logs


@pytest.mark.parametrize("write", [in_place, by_rename])
def test_a_new_database_takes_over_when_its_trial_is_won(
    trials: Trials, geoip: GeoIP, path: Path, write: Callable[[Path, bytes], None]
) -> None:
    """Until then the old one answers; then the new one does, for addresses that were looked up before as well."""
    assert city(geoip) == "Paris"
    write(path, other(path))
    assert look(geoip, 5) == []
    assert (city(geoip), trials.begun) == ("Paris", 1)
    trials.answer = Verdict.SOUND
    (log,) = look(geoip)
    assert log == {
        "log_level": "info",
        "event": "GeoIP database replaced",
        "path": str(path),
        "type": "GeoIP2-City",
        "built": geoip.databases[0].built,
    }
    assert city(geoip) == "Lyon"
    assert (geoip.lookups, geoip.refused) == (Lookups(2, 2), 0)
    assert look(geoip, 5) == []


def test_what_was_tried_out_is_read_by_the_c_reader(trials: Trials, geoip: GeoIP, path: Path) -> None:
    """The new database has nothing left to prove."""
    trials.answer = Verdict.SOUND
    in_place(path, other(path))
    look(geoip)
    assert city(geoip) == "Lyon"
    assert type(geoip._generation.databases[0]._reader) is not maxminddb.Reader
    assert trials.begun == 1


@pytest.mark.parametrize("write", [in_place, by_rename])
@pytest.mark.parametrize("damage", NOT_A_DATABASE.values(), ids=NOT_A_DATABASE.keys())
def test_what_is_no_database_is_refused_once_and_the_old_one_stays(
    trials: Trials, geoip: GeoIP, path: Path, damage: Damage, write: Callable[[Path, bytes], None]
) -> None:
    """One warning with the reason, however many looks follow; then a good file is taken."""
    write(path, damage(other(path)))
    (log,) = look(geoip, 5)
    assert (log["log_level"], log["event"]) == (
        "warning",
        "a changed GeoIP database is not usable; the one before it stays in use",
    )
    assert log["reason"].startswith(f"cannot use the GeoIP database {path}: ")
    assert "download it again" in log["hint"]
    assert (city(geoip), geoip.refused, trials.begun) == ("Paris", 1, 0)
    trials.answer = Verdict.SOUND
    in_place(path, other(path))
    look(geoip)
    assert (city(geoip), geoip.refused) == ("Lyon", 1)


@pytest.mark.parametrize("verdict", [Verdict.DAMAGED, Verdict.CRASHED])
def test_a_trial_that_is_lost_refuses_the_file(trials: Trials, geoip: GeoIP, path: Path, verdict: Verdict) -> None:
    """Its metadata was whole and the first look-ups worked: only the trial could tell."""
    in_place(path, other(path))
    trials.answer = verdict
    (log,) = look(geoip, 5)
    assert log["reason"] == f"cannot use the GeoIP database {path}: {verdict.value}"
    assert (city(geoip), geoip.refused, trials.begun) == ("Paris", 1, 1)


def test_where_there_is_no_c_reader_the_pure_one_takes_the_new_file(trials: Trials, geoip: GeoIP, path: Path) -> None:
    """Nothing can be tried out, and nothing can be crashed."""
    in_place(path, other(path))
    trials.answer = Verdict.NO_C_READER
    assert [log["event"] for log in look(geoip)] == ["GeoIP database replaced"]
    assert city(geoip) == "Lyon"
    assert type(geoip._generation.databases[0]._reader) is maxminddb.Reader
    assert look(geoip) == []
    assert (trials.begun, geoip.refused) == (1, 0)


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def timed(path: Path, now: list[float]) -> Iterator[GeoIP]:
    """As `geoip`, by a clock that the test moves."""
    opened = GeoIP([open_database(path)], clock=lambda: now[0])
    yield opened
    opened.close()


def test_without_a_verdict_the_old_database_stays(trials: Trials, timed: GeoIP, path: Path) -> None:
    """The trial was too slow, say: that is no reason to trust the new file. Told once, and the trial is cleared up."""
    in_place(path, other(path))
    trials.answer = Verdict.UNDECIDED
    (log,) = look(timed, 5)
    assert log == {
        "log_level": "warning",
        "event": "a changed GeoIP database could not be tried out; the one before it stays in use",
        "path": str(path),
        "hint": "It is tried again every 30 minutes and when it changes. `shipper check` tries it now.",
    }
    assert (city(timed), trials.begun, timed.refused) == ("Paris", 1, 1)


def test_what_could_not_be_tried_out_is_tried_again_after_a_pause(
    trials: Trials, timed: GeoIP, path: Path, now: list[float]
) -> None:
    """Not before, and without another warning, until a trial gives an answer."""
    in_place(path, other(path))
    trials.answer = Verdict.UNDECIDED
    look(timed)
    for attempt in (2, 3):
        now[0] += TRY_AGAIN_AFTER - 1
        assert look(timed) == []
        assert trials.begun == attempt - 1
        now[0] += 1
        assert look(timed) == []
        assert (city(timed), trials.begun, timed.refused) == ("Paris", attempt, 1)
    trials.answer = Verdict.SOUND
    now[0] += TRY_AGAIN_AFTER
    assert [log["event"] for log in look(timed)] == ["GeoIP database replaced"]
    assert city(timed) == "Lyon"
    now[0] += 10 * TRY_AGAIN_AFTER
    assert look(timed) == []
    assert trials.begun == 4


def test_what_could_not_be_tried_out_is_tried_again_when_it_changes(trials: Trials, timed: GeoIP, path: Path) -> None:
    """At once, and the next failure is told again: it is another file."""
    trials.answer = Verdict.UNDECIDED
    in_place(path, other(path))
    assert len(look(timed)) == 1
    in_place(path, other(path, "Nice"))
    assert len(look(timed)) == 1
    assert (city(timed), trials.begun, timed.refused) == ("Paris", 2, 2)
    trials.answer = Verdict.SOUND
    in_place(path, other(path, "Lyon"))
    look(timed)
    assert city(timed) == "Lyon"


def test_a_file_that_is_being_written_is_left_alone_until_it_rests(trials: Trials, geoip: GeoIP, path: Path) -> None:
    """A copy in place, a piece between two looks: nothing is read, nothing is warned of, and the end is taken."""
    trials.answer = Verdict.SOUND
    content = other(path)
    for written in range(0, len(content), 2000):
        in_place(path, content[:written])
        assert look(geoip, 1) == []
    in_place(path, content)
    assert (look(geoip, 1), city(geoip)) == ([], "Paris")
    assert [log["event"] for log in look(geoip, 1)] == ["GeoIP database replaced"]
    assert city(geoip) == "Lyon"


def test_a_newer_file_takes_the_place_of_one_on_trial(trials: Trials, geoip: GeoIP, path: Path) -> None:
    """The trial of the one before is called off."""
    in_place(path, other(path, "Lyon"))
    look(geoip)
    in_place(path, other(path, "Nice"))
    look(geoip)
    assert (trials.begun, trials.open) == (2, 1)
    trials.answer = Verdict.SOUND
    look(geoip)
    assert city(geoip) == "Nice"


def test_a_file_that_goes_away_is_told_once_and_its_return_is_taken(trials: Trials, geoip: GeoIP, path: Path) -> None:
    trials.answer = Verdict.SOUND
    path.unlink()
    (log,) = look(geoip, 5)
    assert log["reason"] == f"cannot read the GeoIP database {path}: No such file or directory"
    assert (city(geoip), geoip.refused) == ("Paris", 1)
    write_city(path, "Lyon")
    look(geoip)
    assert city(geoip) == "Lyon"


def test_a_directory_in_the_files_place_is_refused(trials: Trials, geoip: GeoIP, path: Path) -> None:
    path.unlink()
    path.mkdir()
    (log,) = look(geoip, 5)
    assert log["reason"] == f"cannot read the GeoIP database {path}: not a regular file"
    assert (city(geoip), geoip.refused) == ("Paris", 1)


def test_closing_ends_the_trial_that_goes_on(trials: Trials, geoip: GeoIP, path: Path) -> None:
    in_place(path, other(path))
    look(geoip)
    assert trials.open == 1
    geoip.close()
    assert trials.open == 0


def test_a_database_is_tried_out_after_enough_lookups(trials: Trials, geoip: GeoIP) -> None:
    """Not before: the child would cost more than it could save. The reader changes, the answers do not."""
    (database,) = geoip._generation.databases
    assert database.trial_after == 1000
    database.trial_after = 100
    addresses = [f"{first}.{second}.0.1" for second in range(10) for first in range(20, 120)]
    rows = [make_row(address) for address in addresses]
    geoip.enrich(rows[:90])
    look(geoip)
    assert trials.begun == 0
    geoip.enrich(rows)
    look(geoip)
    assert (trials.begun, type(database._reader)) == (1, maxminddb.Reader)
    trials.answer = Verdict.SOUND
    assert look(geoip) == []
    assert type(database._reader) is not maxminddb.Reader
    assert [row.place.city for row in rows[:3]] == ["City 20", "City 21", "City 22"]
    # Networks that nobody has asked for.
    new = [make_row(f"{first}.1.2.3") for first in range(1, 10)]
    geoip.enrich(new)
    assert [row.place.city for row in new] == [f"City {first}" for first in range(1, 10)]
    look(geoip)
    assert trials.begun == 1


@pytest.mark.parametrize(
    ("verdict", "warnings"),
    [(Verdict.DAMAGED, 1), (Verdict.CRASHED, 1), (Verdict.UNDECIDED, 0), (Verdict.NO_C_READER, 0)],
)
def test_a_database_in_use_that_loses_its_trial_stays_with_the_pure_reader(
    trials: Trials, geoip: GeoIP, path: Path, verdict: Verdict, warnings: int
) -> None:
    """Its sound records are worth having, and the pure reader cannot be crashed. That is told once."""
    geoip._generation.databases[0].trial_after = 1
    trials.answer = verdict
    logs = look(geoip, 5)
    assert [log["event"] for log in logs] == [
        "the GeoIP database is damaged; what can be read of it stays in use"
    ] * warnings
    assert all((log["path"], log["reason"]) == (str(path), verdict.value) for log in logs)
    assert (city(geoip), trials.begun, geoip.refused) == ("Paris", 1, 0)


def test_a_c_reader_that_does_not_open_here_is_done_without(
    trials: Trials, geoip: GeoIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process may be short of memory or descriptors; the pure reader goes on."""

    def refuse(*_: object) -> None:
        raise OSError("too many open files")

    geoip._generation.databases[0].trial_after = 1
    trials.answer = Verdict.SOUND
    monkeypatch.setattr(maxminddb, "open_database", refuse)
    assert look(geoip) == []
    assert city(geoip) == "Paris"


def test_each_database_is_watched_by_itself(trials: Trials, tmp_path: Path) -> None:
    """Two changed at once, one of them broken: the other is taken all the same."""
    trials.answer = Verdict.SOUND
    paths = [write_city(tmp_path / f"{number}.mmdb", f"Old {number}") for number in range(2)]
    geoip = open_geoip(Settings(geoip_databases=tuple(paths)))
    in_place(paths[0], b"")
    in_place(paths[1], other(paths[1], "New"))
    assert len(look(geoip)) == 2
    in_place(paths[0], b"{}")
    look(geoip)
    assert (city(geoip), geoip.refused) == ("Old 0", 2)
    assert [database.info.path for database in geoip._generation.databases] == paths
    geoip.close()


def test_a_batch_is_enriched_from_one_database_while_another_takes_over(
    trials: Trials, geoip: GeoIP, path: Path
) -> None:
    """Two threads enrich all the time, a third swaps: no batch is of two minds, no row is missed, none fails."""
    trials.answer = Verdict.SOUND
    contents = [other(path, name) for name in ("Lyon", "Nice")]
    seen: set[str] = set()
    mixed: list[set[str]] = []
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            rows = [make_row(f"81.2.69.{last}") for last in range(256)]
            geoip.enrich(rows)
            cities = {row.place.city for row in rows}
            seen.update(cities)
            if len(cities) != 1 or any(row.tags for row in rows):
                mixed.append(cities)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for round_ in range(60):
        in_place(path, contents[round_ % 2])
        look(geoip)
    done.set()
    for worker in workers:
        worker.join()
    assert mixed == []
    assert seen >= {"Lyon", "Nice"}


def settle(geoip: GeoIP) -> list[EventDict]:
    """Look until the real child has come to an end."""
    (watched,) = geoip._watched
    logs = look(geoip)
    if watched._candidate is not None:
        assert watched._candidate._trial is not None
        watched._candidate._trial.wait()
    return logs + look(geoip)


@pytest.mark.parametrize(
    ("damage", "verdict"), [(crashing, Verdict.CRASHED), (unreadable, Verdict.DAMAGED)], ids=["crash", "damage"]
)
def test_a_real_child_keeps_bad_files_out(geoip: GeoIP, path: Path, damage: Damage, verdict: Verdict) -> None:
    """A file that kills the C reader does not reach it here, and the next good one is taken."""
    in_place(path, damage(write_city(path.with_name("x.mmdb"), "Paris").read_bytes()))
    (log,) = settle(geoip)
    assert log["reason"] == f"cannot use the GeoIP database {path}: {verdict.value}"
    assert city(geoip) == "Paris"
    in_place(path, other(path))
    settle(geoip)
    assert city(geoip) == "Lyon"


RULE = "- {{field: src.ip, cidr: 81.2.0.0/16, data: {{site: {}}}}}\n"


@pytest.fixture
def rules(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.yaml" for name in ("first", "second")]
    for path in paths:
        path.write_text(RULE.format(path.stem), encoding="utf-8")
    return paths


@pytest.fixture
def lists(rules: list[Path]) -> Lists:
    opened = open_lists(Settings(lists=tuple(ListSettings(name=path.stem, path=path) for path in rules)))
    assert opened is not None
    return opened


def sites(lists: Lists) -> list[str]:
    row = make_row(IP)
    lists.enrich([row])
    return [data["site"] for data, *_ in row.enrichments]


def test_a_changed_list_is_taken_and_the_other_stays(lists: Lists, rules: list[Path]) -> None:
    """Values that were matched before are matched again; the counters go on."""
    assert sites(lists) == ["first", "second"]
    in_place(rules[1], RULE.format("third").encode())
    (log,) = look(lists, 5)
    assert log == {
        "log_level": "info",
        "event": "list replaced",
        "list": "second",
        "path": str(rules[1]),
        "rules": 1,
    }
    assert sites(lists) == ["first", "third"]
    assert (lists.lookups, lists.refused) == (Lookups(2, 2), 0)


@pytest.mark.parametrize("content", [b"- {field: src.ip}", b"{", b"\xff", b"<html>"])
def test_a_broken_list_is_refused_once_and_its_rules_stay(lists: Lists, rules: list[Path], content: bytes) -> None:
    in_place(rules[0], content)
    (log,) = look(lists, 5)
    assert (log["log_level"], log["event"]) == (
        "warning",
        "a changed list is not usable; the rules before it stay in use",
    )
    assert str(rules[0]) in log["reason"]
    assert (sites(lists), lists.refused) == (["first", "second"], 1)
    in_place(rules[0], RULE.format("mended").encode())
    look(lists)
    assert (sites(lists), lists.refused) == (["mended", "second"], 1)


def test_a_list_that_goes_away_keeps_its_rules(lists: Lists, rules: list[Path]) -> None:
    rules[0].unlink()
    (log,) = look(lists, 5)
    assert "No such file" in log["reason"]
    assert sites(lists) == ["first", "second"]


def test_a_list_that_changes_while_it_is_read_is_read_again(
    lists: Lists, rules: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a list of rules may be a list of rules. It is not taken, and not warned of if it is not."""

    def written_meanwhile(path: Path) -> object:
        in_place(path, RULE.format("whole").encode())
        return read_rules(path)

    in_place(rules[0], RULE.format("half").encode())
    look(lists, 1)
    monkeypatch.setattr("shipper.enrich.lists.read_rules", written_meanwhile)
    assert look(lists, 1) == []
    assert sites(lists) == ["first", "second"]
    monkeypatch.setattr("shipper.enrich.lists.read_rules", read_rules)
    assert len(look(lists, 2)) == 1
    assert sites(lists) == ["whole", "second"]


def test_unchanged_files_are_not_read_again(lists: Lists, geoip: GeoIP, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look is a stat."""

    def read(*_: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr("shipper.enrich.lists.read_rules", read)
    monkeypatch.setattr("shipper.enrich.geoip.open_database", read)
    assert look(lists, 5) + look(geoip, 5) == []
