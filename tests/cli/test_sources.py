"""`shipper sources`: keys go in through a file, a pipe or a prompt, are tried, and are never seen again."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import SHIPPER, Result, Shipper, clean_environment
from tests.fetch.api import Answer, serve
from tests.secrets_scan import canary

KEY = canary("sources")
NOWHERE = "http://127.0.0.1:1/v1"

Sources = Callable[..., Result]


@pytest.fixture
def environment(tmp_path: Path, shipper: Shipper) -> dict[str, str]:
    """A keystore that is configured and not made yet, with its master key."""
    assert shipper("sources", "new-master-key", "master-key").code == 0
    return {"SHIPPER_KEYSTORE": "keystore", "SHIPPER_MASTER_KEY_FILE": "master-key"}


@pytest.fixture
def sources(shipper: Shipper, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Sources:
    """Run `shipper sources …` with that keystore; `stdin` is what is piped in."""

    def run(*arguments: str, stdin: str = "", **more: str) -> Result:
        with Path("stdin").open("w+") as file:
            file.write(stdin)
            file.flush()
            file.seek(0)
            Path("stdin").unlink()
            monkeypatch.setattr(sys, "stdin", file)
            return shipper("sources", *arguments, **{**environment, **more})

    return run


def unreadable(*parts: str) -> bool:
    """Whether none of the files here shows a key."""
    contents = [path.read_bytes() for path in Path().rglob("*") if path.is_file()]
    return not any(part.encode() in content for content in contents for part in parts)


def test_the_way_from_no_keystore_to_a_run(
    shipper: Shipper, sources: Sources, environment: dict[str, str], organization: dict[str, str]
) -> None:
    """A master key, a source tried and added, listed, tested, run, rotated, run again, removed."""
    url, key = organization["OPENAI_BASE_URL"], organization["OPENAI_ADMIN_KEY"]
    added = sources("add", "acme", "--workspace", "security", "--base-url", url, stdin=key + "\n")
    assert (added.code, added.err) == (0, "")
    first, second = added.out.splitlines()
    assert first.startswith("added acme to keystore, fingerprint of the key ")
    assert second == "the key may read the audit log"
    fingerprint = first.rpartition(" ")[2]
    listed = json.loads(sources("list", "--json").out)
    assert [{**one, "added": "T" in one["added"]} for one in listed] == [
        {
            "id": "acme",
            "workspace": "security",
            "base_url": url,
            "organization": None,
            "added": True,
            "fingerprint": fingerprint,
        }
    ]
    table = sources("list").out
    assert {"acme", "security", url, fingerprint} <= set(table.split())
    assert sources("test").out == "ok    acme: the key may read the audit log\n"
    run = {**environment, "SHIPPER_LOOKBACK": "1d", "SHIPPER_REQUESTS_PER_SECOND": "100"}
    shipped = json.loads(shipper("run", "--json", **run).out)
    assert {(lane["workspace"], lane["source"], lane["status"]) for lane in shipped["lanes"]} == {
        ("security", "acme", "ok")
    }
    assert sum(lane["inserted"] for lane in shipped["lanes"]) > 0
    assert "source acme: the key may read the audit log\n" in shipper("check", **run).out
    assert shipper("sources", "new-master-key", "master-key-2").code == 0
    rotated = sources("rotate", "--new-master-key-file", "master-key-2")
    assert rotated.out.startswith("1 keys are now under the master key in master-key-2")
    assert shipper("run", **run).code == 78
    assert shipper("run", **{**run, "SHIPPER_MASTER_KEY_FILE": "master-key-2"}).code == 0
    removed = sources("remove", "acme", "--yes", SHIPPER_MASTER_KEY_FILE="master-key-2")
    assert removed.out == f"removed acme; delete its key {fingerprint} at OpenAI if nothing else uses it\n"
    empty = shipper("run", **{**run, "SHIPPER_MASTER_KEY_FILE": "master-key-2"})
    assert (empty.code, "holds no source" in empty.err) == (78, True)
    assert unreadable(key)


@pytest.mark.parametrize(
    ("answer", "code", "hint"),
    [
        (401, 77, "OpenAI does not know this key"),
        (403, 77, "it needs the scope Audit Logs: Read (api.audit_logs.read). The organization's IP allowlist"),
        (429, 69, "Too many requests: the key was not judged"),
        (500, 69, "Nothing is lost"),
    ],
)
async def test_a_key_that_does_not_work_is_explained_and_not_stored(
    sources: Sources, tmp_path: Path, answer: int, code: int, hint: str
) -> None:
    """One request, whatever the answer; then no keystore is there."""
    async with serve(Answer(answer, b'{"error":{"message":"no"}}', {"Retry-After": "60"})) as api:
        result = await asyncio.to_thread(sources, "add", "acme", "--base-url", api.url, stdin=KEY)
        assert len(api.asked) == 1
        assert api.asked[0].headers["Authorization"] == f"Bearer {KEY}"
        assert api.asked[0].query["limit"] == "1"
    assert (result.code, result.out) == (code, "")
    assert hint in result.err
    assert f"{answer}" in result.err
    assert not (tmp_path / "keystore").exists()


async def test_an_organization_without_events_is_added_with_a_question(sources: Sources) -> None:
    """Disabled audit logging looks like an empty list."""
    async with serve() as api:
        result = await asyncio.to_thread(sources, "add", "acme", "--base-url", api.url, stdin=KEY)
    assert result.code == 0
    assert "the key works, but no event came back. Is audit logging on?" in result.out


def test_each_source_is_tested_by_itself(sources: Sources, organization: dict[str, str]) -> None:
    """One that fails does not hide the others; the exit code is the first failure's."""
    url, key = organization["OPENAI_BASE_URL"], organization["OPENAI_ADMIN_KEY"]
    assert sources("add", "good", "--base-url", url, stdin=key).code == 0
    assert sources("add", "bad", "--base-url", url, "--no-test", stdin=KEY).code == 0
    assert sources("add", "away", "--base-url", NOWHERE, "--no-test", stdin=KEY).code == 0
    result = sources("test")
    lines = [line for line in result.out.splitlines() if not line.startswith("      ")]
    assert [line.partition(":")[0] for line in lines] == ["FAIL  away", "FAIL  bad", "ok    good"]
    assert "OpenAI does not know this key" in result.out
    assert result.code == 69
    assert sources("test", "bad").code == 77
    one = sources("test", "good")
    assert (one.code, one.out) == (0, "ok    good: the key may read the audit log\n")
    nobody = sources("test", "nobody")
    assert (nobody.code, "It has: away, bad, good" in nobody.err) == (64, True)
    assert unreadable(KEY)


def test_without_a_test_nothing_is_asked(sources: Sources) -> None:
    result = sources("add", "acme", "--base-url", NOWHERE, "--no-test", stdin=KEY)
    assert (result.code, result.out.splitlines()[1]) == (0, "the key was not tried: `shipper sources test` does it")


def test_the_key_from_a_file(sources: Sources) -> None:
    """A file that is not there is named by its path, unless that may be the key itself; then the hint says so."""
    Path("admin-key").write_text(KEY + "\n")
    assert sources("add", "acme", "--key-file", "admin-key", "--no-test").code == 0
    Path("keys").mkdir()
    missing = sources("add", "globex", "--key-file", "keys/globex", "--no-test")
    assert (missing.code, missing.err) == (
        78,
        "error: cannot read the admin key of source 'globex' from keys/globex: No such file or directory\n",
    )
    mistaken = sources("add", "globex", "--key-file", KEY, "--no-test")
    assert mistaken.code == 78
    assert mistaken.err == (
        "error: cannot read the admin key of source 'globex' from the path given: No such file or directory\n"
        "hint:  Name the file that holds it. The path given is not shown, because it may be the secret itself.\n"
    )


@pytest.mark.parametrize(
    ("stdin", "arguments", "code", "message"),
    [
        ("", ["acme"], 64, "no admin key came in"),
        (" \n", ["acme"], 64, "no admin key came in"),
        ("two words", ["acme"], 78, "holds a blank"),
        ("k", [""], 64, "cannot be empty"),
        ("k", ["acme", "--workspace", ""], 64, "cannot be empty"),
        ("k", ["a\x1b[31mb"], 64, "a character that cannot be shown"),
        ("k", ["acme", "--base-url", "http://10.0.0.1/v1"], 78, "the admin key would be sent unencrypted to 10.0.0.1"),
        ("k", ["acme", "--base-url", "openai.com"], 78, "expected https://host/v1"),
        ("k", ["acme", "--organization", "org 1"], 78, "organization of source 'acme'"),
        ("k", ["acme", "--retention-days", "-1"], 64, "retention-days"),
        ("k", ["acme", "sk-admin-1"], 64, "unexpected extra argument"),
        ("k", ["acme", "--key", "sk-admin-1"], 64, "No such option"),
    ],
)
def test_what_cannot_be_added(sources: Sources, stdin: str, arguments: list[str], code: int, message: str) -> None:
    """Said before anything is sent or stored. A key has no place on the command line."""
    result = sources("add", *arguments, "--no-test", stdin=stdin)
    assert (result.code, result.out) == (code, "")
    assert message in result.err
    assert not Path("keystore").exists()


def test_an_id_that_is_taken(sources: Sources) -> None:
    """In the keystore it can be replaced; in the file or the environment it cannot be added at all."""
    assert sources("add", "acme", "--no-test", stdin=KEY).code == 0
    again = sources("add", "acme", "--no-test", stdin=KEY + "2")
    assert (again.code, "Give it another key with --replace" in again.err) == (64, True)
    before = json.loads(sources("list", "--json").out)
    assert sources("add", "acme", "--no-test", "--replace", stdin=KEY + "2").code == 0
    after = json.loads(sources("list", "--json").out)
    assert len(before) == len(after) == 1
    assert before[0]["fingerprint"] != after[0]["fingerprint"]
    Path("shipper.yaml").write_text("sources: [{id: globex}]\n")
    named = sources("add", "globex", "--no-test", stdin=KEY, SHIPPER_CONFIG="shipper.yaml")
    assert (named.code, "is configured already, beside the keystore" in named.err) == (64, True)
    single = sources("add", "openai", "--no-test", stdin=KEY, OPENAI_ADMIN_KEY="k")
    assert (single.code, "is configured already, beside the keystore" in single.err) == (64, True)


@pytest.mark.parametrize("command", [["add", "acme", "--no-test"], ["list"], ["test"], ["remove", "acme", "--yes"]])
def test_what_has_to_be_configured_first(shipper: Shipper, sources: Sources, command: list[str]) -> None:
    """No keystore, no master key, another's master key, one that others may read: 78 and what to do."""
    assert sources("add", "first", "--no-test", stdin=KEY).code == 0
    unset = shipper("sources", *command)
    assert (unset.code, "no keystore is configured" in unset.err) == (78, True)
    keyless = shipper("sources", *command, SHIPPER_KEYSTORE="keystore")
    assert (keyless.code, "no master key for the keystore" in keyless.err) == (78, True)
    assert shipper("sources", "new-master-key", "another").code == 0
    wrong = sources(*command, stdin=KEY, SHIPPER_MASTER_KEY_FILE="another")
    assert (wrong.code, "the master key does not open the keystore" in wrong.err) == (78, True)
    Path("another").chmod(0o644)
    loose = sources(*command, stdin=KEY, SHIPPER_MASTER_KEY_FILE="another")
    assert (loose.code, "hint:  chmod 600 another" in loose.err) == (78, True)
    phrase = shipper("sources", *command, SHIPPER_KEYSTORE="keystore", SHIPPER_MASTER_KEY="open sesame")
    assert (phrase.code, "A passphrase cannot be used" in phrase.err, "sesame" in phrase.err) == (78, True, False)


def test_a_keystore_whose_address_was_changed_sends_no_key(shipper: Shipper, sources: Sources) -> None:
    """Neither a run nor a test believes it."""
    assert sources("add", "acme", "--base-url", NOWHERE, "--no-test", stdin=KEY).code == 0
    content = json.loads(Path("keystore").read_text())
    content["entries"][0]["settings"]["base_url"] = "https://evil.example/v1"
    Path("keystore").write_text(json.dumps(content))
    result = sources("test")
    assert (result.code, result.out) == (78, "")
    assert "the entry 'acme' of the keystore" in result.err
    assert "was changed by something else" in result.err


def test_removing_asks_a_person(sources: Sources) -> None:
    """Without a terminal it wants --yes, and nothing is removed."""
    assert sources("add", "acme", "--no-test", stdin=KEY).code == 0
    piped = sources("remove", "acme", stdin="y\n")
    assert (piped.code, "--yes" in piped.err) == (64, True)
    assert len(json.loads(sources("list", "--json").out)) == 1
    assert sources("remove", "acme", "--yes").code == 0
    assert "The keystore holds no source" in sources("list").out
    assert "The keystore holds no source" in sources("test").out


def test_a_master_key_is_not_written_over(shipper: Shipper, environment: dict[str, str]) -> None:
    """It would close the keystore for good."""
    before = Path("master-key").read_bytes()
    result = shipper("sources", "new-master-key", "master-key")
    assert (result.code, "File exists" in result.err) == (78, True)
    assert Path("master-key").read_bytes() == before
    assert len(base64.b64decode(before)) == 32
    assert Path("master-key").stat().st_mode & 0o777 == 0o600


# ---- at a terminal ----

# Runs a command at a terminal of its own, as a person would; what it shows goes to standard output.
AT_A_TERMINAL = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"


def at_a_terminal(typed: str, *arguments: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-c", AT_A_TERMINAL, str(SHIPPER), "sources", *arguments]
    # Typed after the question: what comes before is echoed, and may be thrown away.
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env={**clean_environment(), **environment}
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = b""
        while not shown.rstrip().endswith((b":", b"]")):
            shown += process.stdout.read(1)
        process.stdin.write(typed.encode())
        process.stdin.flush()
        rest, _ = process.communicate()
    return process.returncode, (shown + rest).decode()


def test_a_key_that_is_typed_is_not_shown(sources: Sources, environment: dict[str, str]) -> None:
    code, shown = at_a_terminal(KEY + "\n", "add", "acme", "--no-test", **environment)
    assert code == 0, shown
    assert "Admin key of acme (not shown): " in shown
    assert KEY not in shown
    assert [one["id"] for one in json.loads(sources("list", "--json").out)] == ["acme"]


@pytest.mark.parametrize(("typed", "code", "left"), [("n\n", 64, 1), ("y\n", 0, 0)])
def test_removing_at_a_terminal(
    sources: Sources, environment: dict[str, str], typed: str, code: int, left: int
) -> None:
    assert sources("add", "acme", "--no-test", stdin=KEY).code == 0
    result, shown = at_a_terminal(typed, "remove", "acme", **environment)
    assert (result, len(json.loads(sources("list", "--json").out))) == (code, left)
    assert "Remove acme and its key from" in shown
