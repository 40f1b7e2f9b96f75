"""The enricher: everything configured, run over a batch, under one contract."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from shipper import enrich
from shipper.config import ListSettings, Settings
from shipper.enrich import DatabaseInfo, Enricher, Enrichment, open_enricher
from shipper.errors import ConfigError, ExitCode
from shipper.model import Row
from shipper.telemetry import Lookups
from tests.enrich.rows import changed, make_row
from tests.mmdb import BUILT, city_record, write_mmdb


class Recorder:
    """An enrichment that tells what is done with it."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.databases = (DatabaseInfo(Path(name), name, 0),)
        self.lookups = Lookups(3, 2, 1)
        self.refused = 3
        self._name = name
        self._calls = calls

    def enrich(self, rows: Sequence[Row]) -> None:
        self._calls.append(f"{self._name} {len(rows)}")

    def refresh(self) -> None:
        self._calls.append(f"refresh {self._name}")

    def close(self) -> None:
        self._calls.append(f"close {self._name}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    database = write_mmdb(
        tmp_path / "city.mmdb", "GeoLite2-City", {"81.2.69.0/24": city_record("FR", "Paris", 48.85, 2.35)}
    )
    rules = tmp_path / "offices.yaml"
    rules.write_text("- {field: src.ip, cidr: 81.2.0.0/16, data: {site: paris}}\n", encoding="utf-8")
    return Settings(geoip_databases=(database,), lists=(ListSettings(name="offices", path=rules),))


def test_databases_and_lists_both_fill_a_row(settings: Settings) -> None:
    """One pass fills the src* columns and `enrichments`, and the counters add up over both."""
    row = make_row("81.2.69.142", tags={"lane": "organization"})
    before = msgspec.structs.replace(row)
    with open_enricher(settings) as enricher:
        enricher.enrich([row])
        assert enricher.lookups == Lookups(2, 2)
        assert enricher.databases == (DatabaseInfo(settings.geoip_databases[0], "GeoLite2-City", BUILT),)
    assert changed(before, row) == {"srcASCountryCode", "srcCity", "srcLatitude", "srcLongitude", "enrichments"}
    assert (row.place.country, row.place.city, row.place.latitude, row.place.longitude) == ("FR", "Paris", 48.85, 2.35)
    assert row.enrichments == [({"site": "paris"}, "src.ip", "offices", "cidr", "81.2.0.0/16")]


def test_nothing_configured_is_a_normal_state() -> None:
    """Rows stay as they are but for the mark on a reserved address."""
    rows = [make_row("81.2.69.142"), make_row("0.0.0.0"), make_row("")]  # noqa: S104  # nothing is bound
    before = [msgspec.structs.replace(row) for row in rows]
    enricher = open_enricher(Settings())
    enricher.enrich(rows)
    enricher.enrich([])
    assert [changed(old, new) for old, new in zip(before, rows, strict=True)] == [set(), {"tags"}, set()]
    assert rows[1].tags == {"srcIPReserved": "unspecified"}
    assert (enricher.databases, enricher.lookups) == ((), Lookups())
    enricher.close()


def test_enrichments_run_in_order_and_are_all_closed() -> None:
    """Counters and databases are those of all of them."""
    calls: list[str] = []
    with Enricher([Recorder("one", calls), Recorder("two", calls)]) as enricher:
        enricher.enrich([make_row(), make_row()])
        assert (enricher.lookups, enricher.refused) == (Lookups(6, 4, 2), 6)
        assert [info.type for info in enricher.databases] == ["one", "two"]
    assert calls[:2] == ["one 2", "two 2"]
    assert sorted(calls[2:]) == ["close one", "close two"]


def test_what_is_open_is_closed_when_the_next_one_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """A list with a mistake does not leave a database open behind it."""
    calls: list[str] = []

    def first(settings: Settings) -> Enrichment:
        return Recorder("one", calls)

    def second(settings: Settings) -> Enrichment:
        raise ConfigError("no")

    monkeypatch.setattr(enrich, "OPENERS", (first, second))
    with pytest.raises(ConfigError, match=r"^no$"):
        open_enricher(settings)
    assert calls == ["close one"]


@pytest.mark.parametrize("kind", ["database", "list"])
def test_a_missing_file_is_a_configuration_error(tmp_path: Path, kind: str) -> None:
    """The process ends with exit code 78 and the file's name, before anything is fetched."""
    path = tmp_path / "none.yaml"
    settings = (
        Settings(geoip_databases=(path,))
        if kind == "database"
        else Settings(lists=(ListSettings(name="l", path=path),))
    )
    with pytest.raises(ConfigError, match=str(path)) as caught:
        open_enricher(settings)
    assert caught.value.exit_code is ExitCode.CONFIG
    assert caught.value.hint


async def test_files_are_looked_at_once_a_second() -> None:
    """However often it is asked; the first second after the start counts, since everything was just read."""
    calls: list[str] = []
    now = [100.0]
    enricher = Enricher([Recorder("one", calls), Recorder("two", calls)], clock=lambda: now[0])
    looked = []
    for now[0] in (100.0, 100.9, 101.0, 101.5, 101.9, 102.0, 500.0, 500.1):
        await enricher.refresh()
        looked.append(len(calls))
    assert looked == [0, 0, 2, 2, 2, 4, 6, 6]
    assert calls[:2] == ["refresh one", "refresh two"]


class Slow(Recorder):
    """Its refresh lasts until it is told to end."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__("slow", calls)
        self.begun = threading.Event()
        self.end = threading.Event()

    def refresh(self) -> None:
        self.begun.set()
        assert self.end.wait(60)
        super().refresh()


async def test_rows_are_enriched_while_files_are_read_and_nobody_reads_them_twice() -> None:
    """A second refresh meanwhile has nothing to do; closing waits for the first."""
    calls: list[str] = []
    now = [0.0]
    slow = Slow(calls)
    enricher = Enricher([slow], clock=lambda: now[0])
    now[0] = 1.0
    first = asyncio.create_task(enricher.refresh())
    await asyncio.to_thread(slow.begun.wait, 60)
    now[0] = 2.0
    await enricher.refresh()
    enricher.enrich([make_row()])
    assert calls == ["slow 1"]
    closing = asyncio.create_task(asyncio.to_thread(enricher.close))
    slow.end.set()
    await asyncio.gather(first, closing)
    assert calls == ["slow 1", "refresh slow", "close slow"]


async def test_nothing_is_read_after_it_was_closed() -> None:
    """A look that was asked for before, and comes to it late, does not open what nobody would close."""
    calls: list[str] = []
    now = [0.0]
    enricher = Enricher([Recorder("one", calls)], clock=lambda: now[0])
    enricher.close()
    now[0] = 1.0
    await enricher.refresh()
    assert calls == ["close one"]


def test_old_databases_are_told_once(tmp_path: Path) -> None:
    """One line with all of them at the first call; a fresh one is not in it, and later calls say nothing."""
    paths = [write_mmdb(tmp_path / f"{name}.mmdb", f"GeoIP2-{name}", {}) for name in ("City", "ISP")]
    day = 86_400
    with open_enricher(Settings(geoip_databases=tuple(paths))) as enricher, capture_logs() as logs:
        enricher.tell_old(BUILT + 31 * day - 1)
        assert logs == []
        enricher.tell_old(BUILT + 31 * day)
        enricher.tell_old(BUILT + 400 * day)
    assert logs == [
        {
            "log_level": "warning",
            "event": "GeoIP databases are older than 30 days",
            "databases": {
                str(paths[0]): "GeoIP2-City of 2026-01-01",
                str(paths[1]): "GeoIP2-ISP of 2026-01-01",
            },
            "hint": "Update them; addresses change hands.",
        }
    ]


def test_a_database_from_the_future_is_new() -> None:
    """The clock may be wrong; the age is then 0."""
    info = DatabaseInfo(Path("x"), "GeoIP2-City", BUILT)
    assert [info.days_old(BUILT - 1e6), info.days_old(BUILT + 86_399), info.days_old(BUILT + 86_400)] == [0, 0, 1]
    assert not info.is_old(0)
