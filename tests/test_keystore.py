"""The keystore: what is in the file, who opens it, and what is noticed when it was changed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from shipper import keystore as module
from shipper.config import Settings, SourceSettings, entry_of, source_of
from shipper.errors import ConfigError, ExitCode, UsageError
from shipper.keystore import Entry, Keystore
from shipper.masterkey import MasterKey, parse_master_key, read_master_key, read_private, write_new_master_key
from shipper.settings_file import load_settings
from tests.secrets_scan import canary

KEY = canary("keystore")
MASTER = MasterKey(bytes(range(100, 132)))
OTHER = MasterKey(bytes(range(0, 64, 2)))


def entry(source_id: str = "acme", key: str = KEY, **settings: Any) -> Entry:
    source = SourceSettings(id=source_id, admin_key=SecretStr(key), **settings)
    return entry_of(source, added_at=1_763_726_400)


@pytest.fixture
def store(tmp_path: Path) -> Keystore:
    return Keystore(tmp_path / "keystore", MASTER)


def change(store: Keystore, how: Callable[[dict[str, Any]], None]) -> None:
    """Edit the file as somebody without the master key could."""
    content = json.loads(store.path.read_text())
    how(content)
    store.path.write_text(json.dumps(content))


# ---- the file ----


def test_what_was_added_comes_back(store: Keystore) -> None:
    """All of it, by id; adding one leaves the others as they are."""
    globex = entry("globex", KEY + "2", workspace="security", base_url="https://eu.api.openai.com/v1", retention_days=9)
    store.add(globex)
    store.add(entry())
    assert store.entries() == (entry(), globex)
    assert source_of(globex) == SourceSettings(
        id="globex",
        workspace="security",
        admin_key=SecretStr(KEY + "2"),
        base_url="https://eu.api.openai.com/v1",
        retention_days=9,
    )


def test_the_file_is_versioned_json_without_the_key(store: Keystore) -> None:
    """Only the key is unreadable; each entry has a nonce of its own, and no two writes the same."""
    store.add(entry())
    store.add(entry("globex"))
    text = store.path.read_text()
    content = json.loads(text)
    assert KEY not in text
    assert base64.b64encode(KEY.encode()).decode() not in text
    assert content["version"] == 1
    first, second = content["entries"]
    assert {name: first[name] for name in ("id", "workspace", "added_at", "settings")} == {
        "id": "acme",
        "workspace": "default",
        "added_at": 1_763_726_400,
        "settings": {
            "organization": None,
            "base_url": "https://api.openai.com/v1",
            "tenant_lane": True,
            "retention_days": 0,
        },
    }
    assert first["ciphertext"] != second["ciphertext"]
    nonces = {box["nonce"] for box in (first, second, content["check"], content["seal"])}
    store.add(entry("third"))
    nonces |= {box["nonce"] for box in json.loads(store.path.read_text())["entries"]}
    assert len(nonces) == 7


def test_the_file_belongs_to_its_owner_alone(store: Keystore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the umask; and nothing is left beside it but the lock."""
    old = os.umask(0)
    try:
        store.add(entry())
        store.add(entry("globex"))
    finally:
        os.umask(old)
    files = {path.name: path.stat().st_mode & 0o777 for path in store.path.parent.iterdir()}
    assert files == {"keystore": 0o600, "keystore.lock": 0o600}


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o666])
@pytest.mark.parametrize("what", ["keystore", "master key"])
def test_a_file_that_others_may_read_or_write_is_refused(store: Keystore, tmp_path: Path, what: str, mode: int) -> None:
    """The store as well as the master key, with the command that mends it."""
    store.add(entry())
    path = store.path
    if what == "master key":
        path = tmp_path / "master-key"
        write_new_master_key(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"{what}.* may be read or changed by others \(mode {mode:04o}\)") as caught:
        store.entries() if what == "keystore" else read_master_key(path)
    assert caught.value.hint == f"chmod 600 {path}"
    assert caught.value.exit_code is ExitCode.CONFIG


@pytest.mark.parametrize(
    ("mode", "mine", "refused"),
    [
        (0o100600, True, False),
        (0o100400, True, False),
        (0o100440, True, True),
        (0o100440, False, False),
        (0o100444, False, True),
        (0o100460, False, True),
    ],
)
def test_whose_file_may_be_read_by_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, *, mine: bool, refused: bool
) -> None:
    """One of root's, as in a Kubernetes Secret volume with fsGroup, can be read in no other way."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    path.chmod(mode & 0o777)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user if mine else user + 1)
    if refused:
        with pytest.raises(ConfigError, match="may be read or changed by others"):
            read_private(path, what="it", missing="")
    else:
        assert read_private(path, what="it", missing="") == b"x"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b'{"version":1}',
        b'{"version":"1"}',
        b'{"version":1,"entries":[]}',
        b"[" * 5000,
    ],
)
def test_a_file_that_is_none_is_refused(store: Keystore, content: bytes) -> None:
    """Damaged is not empty, and is never written over."""
    store.path.write_bytes(content)
    store.path.chmod(0o600)
    with pytest.raises(ConfigError, match="is not a keystore, or it is damaged"):
        store.entries()
    with pytest.raises(ConfigError, match="is not a keystore, or it is damaged"):
        store.add(entry())
    assert store.path.read_bytes() == content


def test_a_newer_version_is_refused_as_such(store: Keystore) -> None:
    store.add(entry())
    change(store, lambda content: content.update(version=2, new={}))
    with pytest.raises(ConfigError, match="has version 2; this shipper knows version 1") as caught:
        store.entries()
    assert caught.value.hint == "Upgrade the shipper."


def test_a_missing_keystore_is_no_empty_one(store: Keystore) -> None:
    """A wrong path must not look like an organization without events."""
    with pytest.raises(ConfigError, match=r"the keystore .* does not exist") as caught:
        store.entries()
    assert "shipper sources add" in caught.value.hint
    with pytest.raises(ConfigError, match="does not exist"):
        store.remove("acme")
    with pytest.raises(ConfigError, match="does not exist"):
        store.rotate(OTHER)


def test_a_folder_that_is_not_there_or_a_folder_instead_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write the keystore .*: No such file or directory"):
        Keystore(tmp_path / "nowhere" / "keystore", MASTER).add(entry())
    with pytest.raises(ConfigError, match=r"cannot read the keystore .*: Is a directory"):
        Keystore(tmp_path, MASTER).entries()


def test_the_target_of_a_link_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "keystore")
    Keystore(tmp_path / "link", MASTER).add(entry())
    assert (tmp_path / "link").is_symlink()
    assert Keystore(tmp_path / "keystore", MASTER).entries() == (entry(),)


# ---- wrong keys and changed files ----


def test_another_master_key_is_told_from_a_changed_file(store: Keystore) -> None:
    store.add(entry())
    before = store.path.read_bytes()
    other = Keystore(store.path, OTHER)
    for act in (
        other.entries,
        lambda: other.add(entry("b")),
        lambda: other.remove("acme"),
        lambda: other.rotate(MASTER),
    ):
        with pytest.raises(ConfigError, match="the master key does not open the keystore") as caught:
            act()
        assert caught.value.exit_code is ExitCode.CONFIG
    assert store.path.read_bytes() == before


def _swap_keys(content: dict[str, Any]) -> None:
    first, second = content["entries"]
    for name in ("nonce", "ciphertext"):
        first[name], second[name] = second[name], first[name]


def _set(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["entries"][0].update(values)


def _setting(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["entries"][0]["settings"].update(values)


@pytest.mark.parametrize(
    "how",
    [
        _swap_keys,
        _set(id="evil"),
        _set(workspace="evil"),
        _set(added_at=1),
        _setting(base_url="https://evil.example/v1"),
        _setting(organization="org-evil"),
        _setting(tenant_lane=1),
        _setting(retention_days=1),
        _setting(more="x"),
        lambda content: content["entries"][0]["settings"].pop("organization"),
        _set(ciphertext=base64.b64encode(bytes(60)).decode()),
        _set(ciphertext=""),
        _set(nonce=base64.b64encode(bytes(12)).decode()),
        _set(nonce=""),
        _set(nonce=base64.b64encode(bytes(200)).decode()),
    ],
)
def test_a_changed_entry_is_named(store: Keystore, how: Callable[[dict[str, Any]], None]) -> None:
    """Nothing of it can be changed, so that no key goes to another address or under another source's name."""
    store.add(entry())
    store.add(entry("globex", KEY + "2"))
    change(store, how)
    with pytest.raises(ConfigError, match=r"the entry '\w+' of the keystore .* was changed by something else"):
        store.entries()


@pytest.mark.parametrize(
    "how",
    [
        lambda content: content["entries"].pop(),
        lambda content: content["entries"].clear(),
        lambda content: content["entries"].reverse(),
        lambda content: content["entries"].append(content["entries"][0]),
        lambda content: content.update(seal=content["check"]),
    ],
)
def test_an_entry_that_was_taken_out_or_doubled_is_noticed(
    store: Keystore, how: Callable[[dict[str, Any]], None]
) -> None:
    """An organization must not fall silent because a line is gone."""
    store.add(entry())
    store.add(entry("globex", KEY + "2"))
    change(store, how)
    with pytest.raises(ConfigError, match=r"the list of entries of the keystore .* was changed by something else"):
        store.entries()


def test_an_entry_of_an_older_copy_is_noticed(store: Keystore) -> None:
    """A key that was replaced does not come back by itself."""
    store.add(entry())
    old = json.loads(store.path.read_text())["entries"]
    store.add(entry(key=KEY + "2"), replace=True)
    change(store, lambda content: content.update(entries=old))
    with pytest.raises(ConfigError, match=r"the list of entries"):
        store.entries()


# ---- adding, removing, rotating ----


def test_an_id_is_there_once(store: Keystore) -> None:
    """A second one is refused, or takes the first one's place when that is wanted."""
    store.add(entry())
    with pytest.raises(UsageError, match="has a source 'acme' already"):
        store.add(entry(key=KEY + "2", workspace="other"))
    assert store.entries() == (entry(),)
    store.add(entry(key=KEY + "2"), replace=True)
    assert store.entries() == (entry(key=KEY + "2"),)


def test_removing_takes_one_out(store: Keystore) -> None:
    store.add(entry())
    store.add(entry("globex"))
    assert store.remove("acme") == entry()
    assert store.entries() == (entry("globex"),)
    with pytest.raises(UsageError, match="has no source 'acme'") as caught:
        store.remove("acme")
    assert caught.value.hint == "It has: globex"
    store.remove("globex")
    with pytest.raises(UsageError) as caught:
        store.remove("globex")
    assert (caught.value.hint, store.entries()) == ("It has: none", ())


def test_after_a_rotation_only_the_new_key_opens_it(store: Keystore) -> None:
    """No box is the same as before, and the object goes on with the new key."""
    store.add(entry())
    store.add(entry("globex"))
    before = {one["ciphertext"] for one in json.loads(store.path.read_text())["entries"]}
    assert store.rotate(OTHER) == 2
    assert not before & {one["ciphertext"] for one in json.loads(store.path.read_text())["entries"]}
    assert store.entries() == Keystore(store.path, OTHER).entries() == (entry(), entry("globex"))
    with pytest.raises(ConfigError, match="does not open"):
        Keystore(store.path, MASTER).entries()
    with pytest.raises(ConfigError, match="the new master key is the old one"):
        store.rotate(OTHER)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_rotation_that_breaks_off_changes_nothing(
    store: Keystore, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A full disk, say: the old file is there whole, under the old key, and no scrap beside it."""
    store.add(entry())
    before = store.path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync" if step == "fsync" else "pathlib.Path.replace", full)
        with pytest.raises(ConfigError, match=r"cannot write the keystore .*: No space left on device"):
            store.rotate(OTHER)
    assert store.path.read_bytes() == before
    assert store.entries() == (entry(),)
    assert {path.name for path in store.path.parent.iterdir()} == {"keystore", "keystore.lock"}


WRITER = """
import sys
from pathlib import Path
from pydantic import SecretStr
from shipper.keystore import Entry, Keystore
from shipper.masterkey import MasterKey
store = Keystore(Path(sys.argv[1]), MasterKey(bytes(range(100, 132))))
for number in range(10):
    store.add(Entry(f"{sys.argv[2]}-{number}", "default", {}, 0, SecretStr("k")))
"""


def test_writers_at_the_same_time_lose_nothing(store: Keystore) -> None:
    """Four processes add ten sources each, and a reader meanwhile never sees half a file."""
    store.add(entry())
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, str(store.path), str(number)]) for number in range(4)]
    while any(process.poll() is None for process in processes):
        assert store.entries()
    assert [process.returncode for process in processes] == [0] * 4
    ids = {one.id for one in store.entries()}
    assert ids == {"acme"} | {f"{writer}-{number}" for writer in range(4) for number in range(10)}


def test_the_fingerprint_is_what_the_hash_begins_with() -> None:
    """And the key is in no representation."""
    assert entry(key="sk-admin-x").fingerprint == hashlib.sha256(b"sk-admin-x").hexdigest()[:12]
    assert KEY not in repr(entry())
    assert str(MASTER.secret) not in repr(MASTER)


# ---- the master key ----

RAW = bytes(range(1, 64, 2))


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(RAW).decode(),
        base64.b64encode(RAW).decode() + "\n",
        base64.b64encode(RAW).decode().rstrip("="),
        base64.urlsafe_b64encode(RAW).decode(),
        RAW.hex(),
        f"  {RAW.hex().upper()}\r\n",
    ],
)
def test_a_master_key_as_base64_or_hexadecimal(text: str, tmp_path: Path) -> None:
    assert parse_master_key(text, where="it") == MasterKey(RAW)
    path = tmp_path / "master-key"
    path.write_text(text)
    path.chmod(0o600)
    assert read_master_key(path) == MasterKey(RAW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "correct horse battery staple",
        "hunter2",
        "thispassphrasehasexactlyfortythreecharacter",
        "a" * 32,
        "g" * 64,
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        base64.b64encode(bytes(range(16))).decode(),
        "é" * 44,
    ],
)
def test_what_is_no_master_key_is_refused_and_not_shown(text: str) -> None:
    """Too short, too long, or words: keys only."""
    with pytest.raises(ConfigError, match=r"^it is not a master key: expected 32 bytes") as caught:
        parse_master_key(text, where="it")
    assert "A passphrase cannot be used" in caught.value.hint
    assert not text or text not in f"{caught.value}{caught.value.hint}"


@pytest.mark.parametrize(
    "secret", [bytes(32), b"\xde\xad\xbe\xef" * 8, b"Jackdaws love my big sphinx of q", bytes(range(15)) * 3]
)
def test_what_only_looks_like_a_key_is_refused(secret: bytes) -> None:
    """Zeros, a pattern, or a passphrase that was encoded."""
    with pytest.raises(ConfigError, match="are text or a pattern, not random"):
        parse_master_key(base64.b64encode(secret[:32]).decode(), where="it")


def test_a_new_master_key_is_good_private_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "master-key"
    old = os.umask(0)
    try:
        write_new_master_key(path)
    finally:
        os.umask(old)
    key = read_master_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match=r"cannot make the master key file .*: File exists"):
        write_new_master_key(path)
    assert read_master_key(path) == key
    write_new_master_key(tmp_path / "another")
    assert read_master_key(tmp_path / "another") != key


def test_a_missing_master_key_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the master key file .* does not exist") as caught:
        read_master_key(tmp_path / "master-key")
    assert "openssl rand -base64 32" in caught.value.hint


# ---- as settings ----


@pytest.fixture
def master_key_file(tmp_path: Path) -> Path:
    path = tmp_path / "master-key"
    write_new_master_key(path)
    return path


@pytest.fixture
def filled(tmp_path: Path, master_key_file: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Overrides that name a keystore with one source, acme."""
    for name in [name for name in os.environ if name.startswith(("SHIPPER_", "OPENAI_"))]:
        monkeypatch.delenv(name)
    Keystore(tmp_path / "keystore", read_master_key(master_key_file)).add(entry())
    return {"keystore": tmp_path / "keystore", "master_key_file": master_key_file}


def test_the_sources_of_the_keystore_are_the_sources(filled: dict[str, Any]) -> None:
    """Without `sources` and without a key in the environment: those alone, with their keys."""
    settings = load_settings(overrides=filled)
    (source,) = settings.all_sources()
    assert source == source_of(entry())
    assert source.read_admin_key().get_secret_value() == KEY
    shown = f"{settings!r}{settings.public()}{source!r}"
    assert KEY not in shown
    assert read_master_key(filled["master_key_file"]).secret.hex() not in shown


def test_they_stand_beside_those_of_the_file_and_of_the_environment(
    filled: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that was configured is left out in silence."""
    from_file = load_settings(overrides={**filled, "sources": [{"id": "globex", "admin_key": "k"}]})
    assert [source.id for source in from_file.all_sources()] == ["globex", "acme"]
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "k")
    assert [source.id for source in load_settings(overrides=filled).all_sources()] == ["openai", "acme"]
    monkeypatch.delenv("OPENAI_ADMIN_KEY")
    monkeypatch.setenv("OPENAI_ADMIN_KEY_FILE", "/k")
    assert [source.id for source in load_settings(overrides=filled).all_sources()] == ["openai", "acme"]


@pytest.mark.parametrize("workspace", ["default", "other"])
def test_an_id_in_both_places_is_refused(filled: dict[str, Any], workspace: str) -> None:
    """Also in another workspace: commands name a source by its id."""
    settings = load_settings(overrides={**filled, "sources": [{"id": "acme", "workspace": workspace}]})
    with pytest.raises(ConfigError, match=r"the source 'acme' is in the keystore .* and outside of it"):
        settings.all_sources()


def test_an_empty_keystore_with_nothing_beside_it_is_an_error(filled: dict[str, Any]) -> None:
    """A run over no source at all would end well each minute."""
    settings = load_settings(overrides=filled)
    settings.open_keystore().remove("acme")
    with pytest.raises(ConfigError, match="holds no source"):
        settings.all_sources()
    beside = load_settings(overrides={**filled, "sources": [{"id": "globex"}]})
    assert [source.id for source in beside.all_sources()] == ["globex"]


def test_a_source_that_is_added_is_there_at_the_next_look(filled: dict[str, Any]) -> None:
    """`watch` needs no restart."""
    settings = load_settings(overrides=filled)
    settings.open_keystore().add(entry("globex"))
    assert [source.id for source in settings.all_sources()] == ["acme", "globex"]


def test_the_master_key_comes_from_a_file_or_the_environment(
    filled: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file wins; without either the error names both. In the configuration file it has no place."""
    right = read_master_key(filled["master_key_file"]).secret.hex()
    only_store = {"keystore": filled["keystore"]}
    with pytest.raises(ConfigError, match="no master key for the keystore") as caught:
        load_settings(overrides=only_store).all_sources()
    assert {"SHIPPER_MASTER_KEY_FILE", "SHIPPER_MASTER_KEY."} <= set(caught.value.hint.replace(",", "").split())
    monkeypatch.setenv("SHIPPER_MASTER_KEY", right)
    settings = load_settings(overrides=only_store)
    assert [source.id for source in settings.all_sources()] == ["acme"]
    assert settings.public()["master_key"] == "<SECRET>"
    assert right not in repr(settings)
    monkeypatch.setenv("SHIPPER_MASTER_KEY", OTHER.secret.hex())
    assert [source.id for source in load_settings(overrides=filled).all_sources()] == ["acme"]
    with pytest.raises(ConfigError, match="does not open"):
        load_settings(overrides=only_store).all_sources()
    monkeypatch.setenv("SHIPPER_MASTER_KEY", "hunter2")
    with pytest.raises(ConfigError, match="SHIPPER_MASTER_KEY is not a master key") as caught:
        load_settings(overrides=only_store).all_sources()
    assert "hunter2" not in str(caught.value)
    file = tmp_path / "shipper.yaml"
    file.write_text(f"master_key: {right}\n")
    with pytest.raises(ConfigError, match="master_key does not belong into the configuration file") as caught:
        load_settings(file)
    assert right not in f"{caught.value}{caught.value.hint}"


def test_without_a_keystore_there_is_none_to_open() -> None:
    with pytest.raises(ConfigError, match="no keystore is configured"):
        Settings().open_keystore()


def test_a_setting_of_a_newer_version_is_refused(filled: dict[str, Any]) -> None:
    """Rather than a source that is read in another way than it was set up."""
    settings = load_settings(overrides=filled)
    newer = Entry("globex", "default", {"colour": "red"}, 0, SecretStr("k"))
    settings.open_keystore().add(newer)
    with pytest.raises(ConfigError, match="the keystore's source 'globex': colour: unknown setting"):
        settings.all_sources()


def test_the_format_is_what_the_documentation_of_the_module_says() -> None:
    """The names in the docstring are the names in the file."""
    names = {field for struct in (module._File, module._StoredEntry) for field in struct.__struct_fields__}
    assert all(f'"{name}"' in (module.__doc__ or "") for name in names)
