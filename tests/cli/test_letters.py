"""dead-letters list, show and replay, and what a report says, as a person sees them."""

from __future__ import annotations

import hashlib
import json
import sys
from base64 import b64decode
from pathlib import Path

import msgspec
import pytest

import shipper.pipeline
from shipper.cli.render import printable
from shipper.model import DeadLetter, RawEvent, Row
from shipper.normalize import normalize
from tests.cli.conftest import Shipper

TIMELESS = b'{"id":"a2","note":"\x1b[31m"}'
NUMBER = b"[42]"
EVENT = b'{"id":"a1","type":"login.succeeded","effective_at":1753089116}'
ID = hashlib.sha256(TIMELESS).hexdigest()


@pytest.fixture
def replayed(shipper: Shipper, tmp_path: Path) -> Shipper:
    """A folder into which an archive of one event and two dead letters was replayed."""
    (tmp_path / "events.ndjson").write_bytes(b"\n".join([EVENT, TIMELESS, b"[" + NUMBER + b"]"]))
    result = shipper("replay", "events.ndjson")
    assert (result.code, "dead-lettered 2" in result.out) == (0, True)
    return shipper


def test_without_dead_letters_the_list_says_so(shipper: Shipper) -> None:
    result = shipper("dead-letters", "list")
    assert (result.code, result.out, result.err) == (0, "No dead letters.\n", "")
    assert json.loads(shipper("dead-letters", "list", "--json").out) == []


def test_the_list_names_each_letter(replayed: Shipper) -> None:
    """Reason, bytes, id and detail; nothing that a terminal could take for a command; the newest of many."""
    result = replayed("dead-letters", "list")
    assert result.code == 0
    [line] = [line for line in result.out.splitlines() if "no-event-time" in line]
    for word in ("openai", "archive", str(len(TIMELESS)), ID[:16], "expected whole Unix seconds"):
        assert word in line
    assert ID not in result.out
    assert "2 dead letters\n" in result.out
    assert "2 dead letters, the newest 1 shown" in replayed("dead-letters", "list", "--limit", "1").out
    [letter] = json.loads(replayed("dead-letters", "list", "--json", "--reason", "no-event-time").out)
    assert set(letter) == {
        *("workspace", "source", "lane", "id", "received_at", "reason", "detail", "size", "resolved_at"),
    }
    assert (letter["id"], letter["size"], letter["resolved_at"]) == (ID, len(TIMELESS), None)
    assert replayed("dead-letters", "list", "--source", "another").out == "No dead letters.\n"


def test_show_gives_the_bytes_exactly(replayed: Shipper) -> None:
    """To standard output nothing but the bytes; why it is one, to standard error."""
    result = replayed("dead-letters", "show", ID[:8])
    assert (result.code, result.out.encode()) == (0, TIMELESS)
    assert result.err.splitlines()[0] == ID
    assert "no-event-time: expected whole Unix seconds" in result.err
    [letter] = json.loads(replayed("dead-letters", "show", ID, "--json").out)
    assert b64decode(letter["raw_base64"]) == TIMELESS


def test_show_escapes_on_a_terminal_what_could_be_a_command(replayed: Shipper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    result = replayed("dead-letters", "show", ID)
    assert result.out == '{"id":"a2","note":"\\x1b[31m"}\n'
    bytes_of_all_kinds = b"a\tb\r\x07\xff\n\xc2\x9b".decode(errors="backslashreplace")
    assert printable(bytes_of_all_kinds, keep="\n") == "a\\tb\\r\\x07\\xff\n\\x9b"
    assert printable("plain\n") == "plain\\n"


def test_replay_says_how_many_became_rows(replayed: Shipper, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them as long as nothing has changed; then the ones that are understood, which the list no longer has."""
    same = replayed("dead-letters", "replay", "--all")
    assert same.code == 0
    assert "received 2 = inserted 0 + already there 2 + dead-lettered 0\n" in same.out
    assert "Of 2 dead letters the table has a row with the event's id for 0.\n" in same.out
    upgrade(monkeypatch)
    some = replayed("dead-letters", "replay", ID[:8], "--json")
    assert (some.code, json.loads(some.out)["resolved"]) == (0, 1)
    every = replayed("dead-letters", "list", "--all", "--json")
    assert sorted(letter["resolved_at"] is None for letter in json.loads(every.out)) == [False, True]
    assert "\n1 dead letter\n" in replayed("dead-letters", "list").out
    assert "in the table" in replayed("dead-letters", "list", "--all").out
    assert "the table had a row with the id of its event at 20" in replayed("dead-letters", "show", ID).err
    assert replayed("dead-letters", "show", ID).out.encode() == TIMELESS
    again = replayed("dead-letters", "replay", ID)
    assert (again.code, "no dead letter that is not resolved" in again.err) == (64, True)


def upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that gives events without a time one."""

    def newer(event: RawEvent) -> Row | DeadLetter:
        if event.raw != TIMELESS:
            return normalize(event)
        result = normalize(msgspec.structs.replace(event, raw=EVENT.replace(b"a1", b"a2")))
        assert isinstance(result, Row)
        result.raw = event.raw
        return result

    monkeypatch.setattr(shipper.pipeline, "normalize", newer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["replay"], "expected ids or --all"),
        (["replay", "abcdef", "--all"], "expected ids or --all"),
        (["replay", "abcdef"], "no dead letter that is not resolved has an id that begins with abcdef"),
        (["show", "abcdef"], "no dead letter has an id that begins with abcdef"),
        (["show", "xyz"], "'xyz' is not the id of a dead letter"),
        (["list", "--limit", "0"], "Invalid value for '--limit'"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_64(replayed: Shipper, arguments: list[str], message: str) -> None:
    result = replayed("dead-letters", *arguments)
    assert (result.code, message in result.err) == (64, True)
    assert "hint:" in result.err


def test_a_forced_replay_writes_again(replayed: Shipper) -> None:
    """Counted as inserted, and still one event."""
    lane = json.loads(replayed("replay", "events.ndjson", "--force", "--json").out)["lanes"][0]
    assert (lane["received"], lane["inserted"], lane["already_there"]) == (3, 1, 2)
    [row] = json.loads(replayed("query", "SELECT count() AS n FROM openai_audit_logs", "--json").out)
    assert row == {"n": 1}
