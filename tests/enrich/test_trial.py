"""The trial: a child process reads every record of a database, and may die of it."""

from __future__ import annotations

import os
import random
import shutil
import struct
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import maxminddb
import pytest

from shipper.enrich.geoip import trial_program
from shipper.enrich.geoip.copies import PrivateCopy
from shipper.enrich.geoip.trial import LIMIT, Trial, Verdict
from shipper.enrich.geoip.trial_program import addresses, main, read_tree, try_every_record
from tests.enrich.damage import crashing, unreadable, write_city
from tests.mmdb import asn_record, write_mmdb


def pack(records: list[int], size: int) -> bytes:
    """Nodes as the format's specification lays them out."""
    nodes = list(zip(records[::2], records[1::2], strict=True))
    if size == 28:
        return b"".join(
            (left & 0xFFFFFF).to_bytes(3, "big")
            + bytes([left >> 24 << 4 | right >> 24])
            + (right & 0xFFFFFF).to_bytes(3, "big")
            for left, right in nodes
        )
    return b"".join(record.to_bytes(size // 8, "big") for record in records)


@pytest.mark.parametrize("size", [24, 28, 32])
def test_the_tree_is_read_as_the_specification_says(size: int) -> None:
    """Every record size, with records that use all of their bits; what follows the tree is not looked at."""
    rng = random.Random(size)
    records = [0, 1, 2**size - 1, 2 ** (size - 1)] + [rng.getrandbits(size) for _ in range(200)]
    assert read_tree(pack(records, size) + bytes(100), len(records) // 2, size).tolist() == records


def follow(records: list[int], bits: int, address: int) -> int:
    """What an address leads to: a record, or a node when there were not enough bits for more."""
    node = 0
    for bit in range(bits - 1, -1, -1):
        node = records[2 * node + (address >> bit & 1)]
        if node >= len(records) // 2:
            break
    return node


def random_tree(rng: random.Random) -> list[int]:
    """Mostly one node after the other, as in a real tree, but with shared branches, loops and repeated records."""
    nodes = rng.randint(1, 12)
    records = []
    for node in range(nodes):
        for _ in range(2):
            onward = rng.randrange(nodes) if rng.random() < 0.1 else min(node + 1, nodes)
            records.append(rng.choice((onward, nodes + rng.randint(0, 9))))
    return records


def test_every_record_that_a_lookup_can_meet_is_tried_once() -> None:
    """Over random trees: one address for each record that any of the addresses leads to, and none besides.

    A tree that is refused instead does have an address that leads nowhere.
    """
    bits, whole, refused = 6, 0, 0
    for seed in range(2000):
        records = random_tree(random.Random(seed))
        nodes = len(records) // 2
        met = {follow(records, bits, address) for address in range(2**bits)}
        try:
            tried = list(addresses(memoryview(struct.pack(f"{2 * nodes}I", *records)).cast("I"), bits))
        except ValueError:
            assert min(met) < nodes
            refused += 1
        else:
            reached = [follow(records, bits, address) for address in tried]
            assert sorted(reached) == sorted(record for record in met if record > nodes)
            whole += 1
    assert (whole > 100, refused > 100) == (True, True)


def test_a_loop_does_not_hold_the_walk_up() -> None:
    """To follow it through every address would take 2^128 steps."""
    assert list(addresses(memoryview(struct.pack("4I", 1, 1, 0, 7)).cast("I"), 128)) == [3 << 126]


class Counting:
    """A reader that notes the AS numbers it found."""

    def __init__(self, reader: maxminddb.Reader) -> None:
        self._reader = reader
        self.numbers: list[int] = []

    def metadata(self) -> object:
        return self._reader.metadata()

    def get(self, address: IPv4Address | IPv6Address) -> Any:
        record: Any = self._reader.get(address)
        self.numbers.append(record["autonomous_system_number"])
        return record


@pytest.mark.parametrize("version", [4, 6])
def test_a_distinct_record_is_read_once_however_many_networks_have_it(tmp_path: Path, version: int) -> None:
    """A network with a hole in it is several branches of the tree with one record, in either IP version."""
    networks = {"0.0.0.0/1": asn_record(1, "Around"), "20.0.0.0/8": asn_record(2, "Hole")}
    path = write_mmdb(tmp_path / "asn.mmdb", "GeoLite2-ASN", networks, ip_version=version)
    with maxminddb.open_database(path, maxminddb.MODE_MMAP_EXT) as reader:
        assert len(list(reader)) > 2
        counting = Counting(reader)
        try_every_record(path, counting)  # type: ignore[arg-type]
    assert sorted(counting.numbers) == [1, 2]


def test_a_record_that_is_no_map_is_damage(tmp_path: Path) -> None:
    """Where bytes are missing in the middle, the tree leads to keys and values instead of records."""
    path = write_mmdb(tmp_path / "asn.mmdb", "GeoLite2-ASN", {"20.0.0.0/8": "text"})
    assert verdict_on(path) is Verdict.DAMAGED
    with (
        maxminddb.open_database(path, maxminddb.MODE_MMAP_EXT) as reader,
        pytest.raises(TypeError, match="a record is a map"),
    ):
        try_every_record(path, reader)  # type: ignore[arg-type]


@pytest.fixture
def city(tmp_path: Path) -> Path:
    return write_city(tmp_path / "city.mmdb")


def verdict_on(path: Path) -> Verdict:
    return Trial(PrivateCopy(path)).wait()


def test_a_whole_database_is_sound(city: Path) -> None:
    assert verdict_on(city) is Verdict.SOUND


def test_a_record_that_cannot_be_read_is_damage(city: Path) -> None:
    """One of 128 is enough."""
    city.write_bytes(unreadable(city.read_bytes()))
    assert verdict_on(city) is Verdict.DAMAGED


def test_a_database_that_kills_its_reader_is_told_by_the_readers_death(city: Path) -> None:
    """The C reader itself, on the key of a map that is a number: this process goes on."""
    city.write_bytes(crashing(city.read_bytes()))
    assert verdict_on(city) is Verdict.CRASHED


def test_what_is_no_database_at_all_is_damage(city: Path) -> None:
    city.write_text("<html>", encoding="utf-8")
    assert verdict_on(city) is Verdict.DAMAGED


@pytest.fixture
def copy(city: Path) -> Iterator[PrivateCopy]:
    made = PrivateCopy(city)
    yield made
    made.close()


def program(folder: Path, source: str) -> Path:
    """A stand-in for the child's program."""
    path = folder / "program.py"
    path.write_text(f"import os, signal, sys, time\n{source}\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        ("sys.exit(0)", Verdict.SOUND),
        ("sys.exit(65)", Verdict.DAMAGED),
        ("os.kill(os.getpid(), signal.SIGSEGV)", Verdict.CRASHED),
        ("os.kill(os.getpid(), signal.SIGBUS)", Verdict.CRASHED),
        ("os.abort()", Verdict.CRASHED),
        ("os.kill(os.getpid(), signal.SIGKILL)", Verdict.UNDECIDED),
        ("os.kill(os.getpid(), signal.SIGALRM)", Verdict.UNDECIDED),
        ("raise MemoryError", Verdict.UNDECIDED),
        ("import no_such_module", Verdict.UNDECIDED),
        ("sys.exit(3)", Verdict.UNDECIDED),
        ("sys.exit(66)", Verdict.NO_C_READER),
        # What the child must not have: this process's environment and its other files; what it must have: the copy.
        ("sys.exit(65 if os.environ.keys() - {'LC_CTYPE'} else 0)", Verdict.SOUND),
        ("sys.exit(0 if os.fstat(int(sys.argv[2])).st_size > 1000 else 65)", Verdict.SOUND),
        ("sys.exit(0 if sys.stdin.read() == '' and os.getcwd() == '/' else 65)", Verdict.SOUND),
        ("sys.exit(0 if os.getpgid(0) == os.getpid() else 65)", Verdict.SOUND),
    ],
)
def test_the_childs_end_is_the_verdict(
    tmp_path: Path, copy: PrivateCopy, monkeypatch: pytest.MonkeyPatch, source: str, verdict: Verdict
) -> None:
    """Death by its own fault condemns the file; death by another's hand, or a failure to begin, says nothing."""
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-not-for-children")
    assert Trial(copy, program=program(tmp_path, source)).wait() is verdict


def test_nobody_waits_for_a_trial(tmp_path: Path, copy: PrivateCopy) -> None:
    """There is no verdict while the child runs; it is ended when time is up, and then there is none to be had."""
    now = [0.0]
    trial = Trial(copy, program=program(tmp_path, "time.sleep(600)"), clock=lambda: now[0])
    assert trial.verdict() is None
    now[0] = LIMIT - 1
    assert trial.verdict() is None
    now[0] = LIMIT
    assert [trial.verdict(), trial.verdict(), trial.wait()] == [Verdict.UNDECIDED] * 3


def test_waiting_ends_with_the_limit(tmp_path: Path, copy: PrivateCopy) -> None:
    assert Trial(copy, limit=0, program=program(tmp_path, "time.sleep(600)")).wait() is Verdict.UNDECIDED


def test_a_trial_that_is_closed_leaves_no_process(tmp_path: Path, copy: PrivateCopy) -> None:
    trial = Trial(copy, program=program(tmp_path, "time.sleep(600)"))
    assert trial._child is not None
    pid = trial._child.pid
    trial.close()
    trial.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert trial.verdict() is Verdict.UNDECIDED


def test_without_a_python_to_run_there_is_no_trial(monkeypatch: pytest.MonkeyPatch, copy: PrivateCopy) -> None:
    """An interpreter that is embedded somewhere does not know its own path."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert [Trial(copy).verdict(), Trial(copy).wait()] == [Verdict.UNDECIDED] * 2


def test_the_program_bounds_itself_and_then_reads(monkeypatch: pytest.MonkeyPatch, city: Path) -> None:
    """Its exit codes, in this process: the bounds are noted instead of set, since they would outlive the test."""
    bounds: list[tuple[object, ...]] = []
    for module, name in (("signal", "alarm"), ("resource", "setrlimit"), ("os", "nice")):
        patched = getattr(trial_program, module)
        monkeypatch.setattr(patched, name, lambda *values, name=name: bounds.append((name, *values)))
    monkeypatch.setattr(Path, "write_text", lambda path, text, **_: bounds.append((str(path), text)))
    monkeypatch.setattr(sys, "path", list(sys.path))
    size = city.stat().st_size
    whole, broken = PrivateCopy(city), city.read_bytes()
    city.write_bytes(unreadable(broken))
    assert main(os.devnull, str(whole.fd), "7") == 0
    assert main(os.devnull, str(PrivateCopy(city).fd), "7") == 65
    assert bounds[0] == ("alarm", 7)
    assert ("nice", 10) in bounds
    assert ("/proc/self/oom_score_adj", "1000") in bounds
    limits = [bound for bound in bounds if bound[0] == "setrlimit"]
    assert limits[0][2] == (0, 0)
    assert limits[1][2] == ((256 << 20) + 8 * size,) * 2


@pytest.fixture
def unbounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program in this process, without the bounds that would outlive the test."""
    monkeypatch.setattr(trial_program, "_restrain", lambda *_: None)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize(
    "error",
    [
        maxminddb.InvalidDatabaseError,
        ValueError,
        TypeError,
        KeyError,
        OverflowError,
        SystemError,
        RecursionError,
        MemoryError,
    ],
)
@pytest.mark.usefixtures("unbounded")
def test_what_a_damaged_database_raises_is_damage(
    monkeypatch: pytest.MonkeyPatch, copy: PrivateCopy, error: type[Exception]
) -> None:
    """A record that nests without an end or claims more bytes than there is memory for, too."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(trial_program, "try_every_record", fail)
    assert main(os.devnull, str(copy.fd), "7") == 65


@pytest.mark.usefixtures("unbounded")
@pytest.mark.parametrize(("missing", "code"), [("maxminddb.extension", 66), ("maxminddb", None)])
def test_only_a_missing_c_reader_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, copy: PrivateCopy, missing: str, code: int | None
) -> None:
    """maxminddb is built without it where there is no compiler. Another missing module is a failure of the trial."""
    monkeypatch.delitem(sys.modules, "maxminddb.extension", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    if code is None:
        with pytest.raises(ModuleNotFoundError):
            main(os.devnull, str(copy.fd), "7")
    else:
        assert main(os.devnull, str(copy.fd), "7") == code


@pytest.mark.parametrize("broken", [False, True])
def test_a_real_child_tells_a_missing_c_reader_from_one_that_does_not_load(
    tmp_path: Path, copy: PrivateCopy, monkeypatch: pytest.MonkeyPatch, *, broken: bool
) -> None:
    """The library as it is installed without a compiler, and with an extension for another machine."""
    installed = Path(maxminddb.__file__).parent
    shutil.copytree(installed, tmp_path / "maxminddb", ignore=shutil.ignore_patterns("extension*", "__pycache__"))
    metadata = next(installed.parent.glob("maxminddb-*.dist-info"))
    shutil.copytree(metadata, tmp_path / metadata.name)
    if broken:
        (tmp_path / "maxminddb" / f"extension{EXTENSION_SUFFIXES[0]}").write_bytes(b"\x7fELF")
    monkeypatch.setattr(maxminddb, "__file__", str(tmp_path / "maxminddb" / "__init__.py"))
    assert Trial(copy).wait() is (Verdict.UNDECIDED if broken else Verdict.NO_C_READER)
