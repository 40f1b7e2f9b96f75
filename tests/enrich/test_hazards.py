"""What kills a process that maps a database without precautions, and does not kill this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import maxminddb
import pytest

from shipper.enrich.geoip import GeoIP, Verdict, open_database
from shipper.errors import ConfigError
from tests.enrich.damage import IP, LAST, NOT_A_DATABASE, crashing, flipped, unreadable, write_city
from tests.enrich.rows import make_row

# FLIPS=2000 takes some minutes.
FLIPS = int(os.environ.get("FLIPS", "50"))

PLAIN = """
import sys, maxminddb
reader = maxminddb.open_database(sys.argv[1], maxminddb.MODE_MMAP_EXT)
assert reader.get(sys.argv[2])
open(sys.argv[1], "wb").close()
reader.get(sys.argv[2])
"""

CRASH = """
import sys, maxminddb
maxminddb.open_database(sys.argv[1], maxminddb.MODE_MMAP_EXT).get(sys.argv[2])
"""

OURS = """
import sys
from pathlib import Path
from shipper.enrich.geoip import GeoIP, open_database
from tests.enrich.rows import make_row
path = Path(sys.argv[1])
database = open_database(path)
database.begin_trial()
print(database.learn(wait=True).name, type(database._reader).__module__)
enrichment = GeoIP([database])
content = path.read_bytes()
for overwritten in (b"", b"<html>", bytes(len(content)), content[:5000]):
    with path.open("wb") as file:
        file.write(overwritten)
    row = make_row(sys.argv[2])
    enrichment._generation.find.cache_clear()
    enrichment.enrich([row])
    print(row.place.city, row.tags)
"""


def run(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parent.parent.parent
    return subprocess.run(
        [sys.executable, "-c", script, str(path), IP], cwd=root, capture_output=True, text=True, check=False
    )


@pytest.fixture
def city(tmp_path: Path) -> Path:
    return write_city(tmp_path / "city.mmdb")


def test_a_plain_mapping_dies_when_its_file_is_overwritten(city: Path) -> None:
    """The hazard is real: SIGBUS at the next look-up."""
    assert run(PLAIN, city).returncode == -signal.SIGBUS


def test_ours_looks_up_what_it_opened(city: Path) -> None:
    """The same reader, the same writes in place: the copy answers."""
    result = run(OURS, city)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == ["SOUND maxminddb.extension"] + ["Paris {}"] * 4


def test_a_damaged_file_kills_the_c_reader(city: Path) -> None:
    """The other hazard is real as well: SIGSEGV in a look-up, and the file opened without complaint."""
    city.write_bytes(crashing(city.read_bytes()))
    assert run(CRASH, city).returncode == -signal.SIGSEGV


@pytest.mark.parametrize("damage", [crashing, unreadable])
def test_a_damaged_file_is_used_as_far_as_it_can_be_read(city: Path, damage: object) -> None:
    """At the start there is no older file to keep. Its trial is lost, and the pure reader goes on."""
    assert callable(damage)
    city.write_bytes(damage(city.read_bytes()))
    database = open_database(city)
    database.begin_trial()
    assert database.learn(wait=True) in (Verdict.CRASHED, Verdict.DAMAGED)
    rows = [make_row("20.0.0.1"), make_row(IP)]
    enrichment = GeoIP([database])
    enrichment.enrich(rows)
    assert [row.place.country for row in rows] == ["FR", "" if damage is unreadable else "FR"]
    assert [row.tags for row in rows] == [{}, {"geoipFailed": "GeoIP2-City"} if damage is unreadable else {}]
    assert type(database._reader) is maxminddb.Reader
    enrichment.close()


@pytest.mark.parametrize("damage", NOT_A_DATABASE.values(), ids=NOT_A_DATABASE.keys())
def test_what_is_no_database_is_refused_at_the_start(city: Path, damage: object) -> None:
    assert callable(damage)
    city.write_bytes(damage(city.read_bytes()))
    with pytest.raises(ConfigError, match="cannot use the GeoIP database"):
        open_database(city)


def test_flipped_bytes_are_survived(city: Path) -> None:
    """A file with a few wrong bytes is refused, or tried out and then looked up, every network of it, in this process.

    Look-ups find, do not find or are counted as failed; those of a file that won its trial go through the C reader.
    """
    whole = city.read_bytes()
    addresses = [f"{first}.1.1.1" for first in range(LAST + 20)] + [IP, "2a00::1"]
    outcomes: dict[object, int] = {}
    for seed in range(FLIPS):
        city.write_bytes(flipped(whole, seed))
        try:
            database = open_database(city)
        except ConfigError:
            outcomes["refused"] = outcomes.get("refused", 0) + 1
            continue
        database.begin_trial()
        verdict = database.learn(wait=True)
        outcomes[verdict] = outcomes.get(verdict, 0) + 1
        enrichment = GeoIP([database])
        rows = [make_row(address) for address in addresses]
        enrichment.enrich(rows)
        if verdict is Verdict.SOUND:
            assert type(database._reader) is not maxminddb.Reader
        assert enrichment.lookups.failed == sum("geoipFailed" in row.tags for row in rows)
        enrichment.close()
    assert outcomes.keys() >= {"refused", Verdict.SOUND, Verdict.DAMAGED, Verdict.CRASHED}
