"""What check, status and a run say of the GeoIP databases."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import orjson
import pytest

from shipper.config import Settings
from shipper.enrich import open_enricher
from shipper.model import iso
from shipper.run import open_run
from tests import mmdb
from tests.cli.conftest import KEY, Shipper
from tests.enrich.damage import crashing, write_city

NOBODY = {"OPENAI_ADMIN_KEY": KEY, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "SHIPPER_RETRIES": "0"}
DAY = 86_400


@pytest.fixture
def databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """One built 40 days ago, one built today."""
    paths = []
    for name, age in (("old.mmdb", 40), ("new.mmdb", 0)):
        monkeypatch.setattr(mmdb, "BUILT", int(time.time()) - age * DAY)
        paths.append(write_city(tmp_path / name))
    return paths


def built(age: int) -> str:
    return iso(int(time.time()) - age * DAY)[:10]


def test_check_reads_each_database_and_tells_its_age(shipper: Shipper, databases: list[Path]) -> None:
    """An old one is a note, not a failure."""
    result = shipper("check", "--json", **NOBODY, SHIPPER_GEOIP_DATABASES=":".join(map(str, databases)))
    assert orjson.loads(result.out)[:2] == [
        {
            "subject": "enrichment, old.mmdb",
            "ok": True,
            "detail": f"GeoIP2-City of {built(40)}, 40 days old; every record can be read",
            "fix": "It is older than 30 days: update it.",
        },
        {
            "subject": "enrichment, new.mmdb",
            "ok": True,
            "detail": f"GeoIP2-City of {built(0)}, 0 days old; every record can be read",
            "fix": "",
        },
    ]


def test_check_fails_for_a_database_that_a_run_could_only_half_use(shipper: Shipper, databases: list[Path]) -> None:
    """It opens and its first look-ups work; only reading all of it shows the damage."""
    databases[1].write_bytes(crashing(databases[1].read_bytes()))
    result = shipper("check", **NOBODY, SHIPPER_GEOIP_DATABASES=str(databases[1]))
    assert result.code == 78
    assert (
        f"FAIL  enrichment, new.mmdb: GeoIP2-City of {built(0)}, 0 days old; it crashes the process that reads it\n"
        "      Download it again.\n"
    ) in result.out


def test_status_tells_the_databases_below_the_table(shipper: Shipper, databases: list[Path]) -> None:
    """Type, build date and age of each; a file that cannot be read is told, and is no reason to fail."""
    paths = [*databases, Path("none.mmdb"), Path("/dev/null"), Path("empty.mmdb")]
    Path("empty.mmdb").touch()
    result = shipper("status", SHIPPER_GEOIP_DATABASES=":".join(map(str, paths)))
    assert result.code == 0
    assert result.out.splitlines()[1:] == [
        f"GeoIP: GeoIP2-City of {built(40)}, 40 days old; update it",
        f"GeoIP: GeoIP2-City of {built(0)}, 0 days old",
        "GeoIP: cannot read the GeoIP database none.mmdb: No such file or directory",
        "GeoIP: cannot read the GeoIP database /dev/null: not a regular file",
        "GeoIP: cannot use the GeoIP database empty.mmdb: not a MaxMind DB file",
    ]
    both = ":".join(map(str, [databases[0], "none.mmdb"]))
    old, missing = orjson.loads(shipper("status", "--json", SHIPPER_GEOIP_DATABASES=both).out)["databases"]
    assert old.pop("built").startswith(built(40))
    assert old == {"path": str(databases[0]), "type": "GeoIP2-City", "days_old": 40, "old": True, "problem": ""}
    assert missing == {
        "path": "none.mmdb",
        "type": None,
        "built": None,
        "days_old": None,
        "old": None,
        "problem": "cannot read the GeoIP database none.mmdb: No such file or directory",
    }


def test_a_run_warns_of_an_old_database_in_one_line(shipper: Shipper, databases: list[Path]) -> None:
    """However many batches it has."""
    events = "".join(f'{{"id":"e{n}","type":"login.failed","effective_at":{1_753_089_116 + n}}}\n' for n in range(500))
    Path("events.ndjson").write_text(events, encoding="utf-8")
    both = ":".join(map(str, databases))
    result = shipper("replay", "events.ndjson", SHIPPER_GEOIP_DATABASES=both, SHIPPER_BATCH_ROWS="100")
    assert result.code == 0
    (warning,) = [log for log in map(orjson.loads, result.err.splitlines()) if "older than" in log["event"]]
    assert warning["level"] == "warning"
    assert warning["databases"] == {str(databases[0]): f"GeoIP2-City of {built(40)}"}


def test_watch_keeps_its_databases_and_takes_in_new_ones(tmp_path: Path, databases: list[Path]) -> None:
    """A pass that is given an enricher looks at the files and leaves the enricher open for the next."""
    now = [0.0]
    settings = Settings(clickhouse_url=f"chdb:{tmp_path / 'data'}", geoip_databases=(databases[1],))

    async def passes() -> list[str]:
        types = []
        with open_enricher(settings) as enricher:
            enricher._clock = lambda: now[0]
            enricher._due = 0.0
            for second in range(1, 5):
                now[0] = float(second)
                async with open_run(settings, "watch", asyncio.Event(), enricher) as run:
                    types.append(run.enricher.databases[0].type)
                if second == 1:
                    mmdb.write_mmdb(databases[1], "GeoLite2-Country", {"20.0.0.0/8": mmdb.country_record("AT")})
                    os.utime(databases[1], (1, 1))
                for watched in enricher._enrichments[0]._watched:  # type: ignore[attr-defined]
                    if watched._candidate is not None:
                        watched._candidate._trial.wait()
        return types

    assert asyncio.run(passes()) == ["GeoIP2-City"] * 3 + ["GeoLite2-Country"]
