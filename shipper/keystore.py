"""The keystore: admin keys of many organizations in one file, under AES-256-GCM with a master key kept elsewhere.

    {"version": 1, "check": {…},
     "entries": [{"id", "workspace", "settings", "added_at", "nonce", "ciphertext"}, …], "seal": {…}}

An entry's ciphertext is its admin key; everything else of the entry is authenticated with it, so that a key cannot be
moved to another source or sent to another address. `check` is encrypted nothing, which only the right master key
opens: it tells a wrong key from a changed file. `seal` authenticates the list of entries, so that none can be taken
out, repeated or put back from an older copy. What it cannot tell is a whole file that was put back.

The file is replaced, never changed in place: a reader and a crash see the old one or the new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr

from shipper.errors import ConfigError, UsageError
from shipper.masterkey import MasterKey, read_private

VERSION = 1
_FORMAT = "openai-audit-shipper keystore"
_NONCE_BYTES = 12

Value = str | int | bool | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One source. `settings` are those of config.SourceSettings without id, workspace and key.

    `added_at` is Unix time, and the time of the last replacement.
    """

    id: str
    workspace: str
    settings: Mapping[str, Value]
    added_at: int
    key: SecretStr

    @property
    def fingerprint(self) -> str:
        """Tells keys apart without showing them: what `printf %s KEY | sha256sum` begins with."""
        return hashlib.sha256(self.key.get_secret_value().encode()).hexdigest()[:12]


class _Box(msgspec.Struct, forbid_unknown_fields=True):
    nonce: bytes
    ciphertext: bytes


class _StoredEntry(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    workspace: str
    settings: dict[str, Value]
    added_at: int
    nonce: bytes
    ciphertext: bytes


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    check: _Box
    entries: list[_StoredEntry]
    seal: _Box


class _AnyVersion(msgspec.Struct):
    version: int


class Keystore:
    """The keystore at `path`, opened with `master_key`. Every call reads the file anew; writers wait for each other.

    Raises ConfigError for a file that is not there, that others may read, that is no keystore, that another master key
    opens, or that was changed by anything but this class.
    """

    def __init__(self, path: Path, master_key: MasterKey) -> None:
        # Through a link, or the link would be replaced.
        self.path = path.resolve()
        self._given = path
        self._master_key = master_key

    def entries(self) -> tuple[Entry, ...]:
        """Every entry, its key decrypted, in the order of their ids."""
        text = read_private(
            self._given, what="the keystore", missing="`shipper sources add` makes it when it adds the first source."
        )
        return _opened(text, self._master_key, self.path)

    def add(self, entry: Entry, *, replace: bool = False) -> None:
        """Add an entry; the first one makes the file. Raises UsageError when the id is taken and not to be replaced."""
        with self._locked():
            before = self.entries() if self.path.exists() else ()
            others = [one for one in before if one.id != entry.id]
            if len(others) < len(before) and not replace:
                raise UsageError(
                    f"the keystore has a source {entry.id!r} already", hint="Give it another key with --replace."
                )
            self._write([*others, entry], self._master_key)

    def remove(self, source_id: str) -> Entry:
        """Take an entry out. Raises UsageError when there is none of that id."""
        with self._locked():
            before = self.entries()
            for entry in before:
                if entry.id == source_id:
                    self._write([one for one in before if one is not entry], self._master_key)
                    return entry
        known = ", ".join(entry.id for entry in before) or "none"
        raise UsageError(f"the keystore has no source {source_id!r}", hint=f"It has: {known}")

    def rotate(self, new: MasterKey) -> int:
        """Encrypt everything anew with another master key, which is the only one from then on. Returns how many."""
        if new == self._master_key:
            raise ConfigError(
                "the new master key is the old one", hint="`shipper sources new-master-key FILE` makes one."
            )
        with self._locked():
            entries = self.entries()
            self._write(entries, new)
            self._master_key = new
        return len(entries)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, in this process or another. The kernel lets go of the lock when its owner dies."""
        with _writing(self.path):
            lock = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _write(self, entries: Iterable[Entry], master_key: MasterKey) -> None:
        content = _sealed(sorted(entries, key=lambda entry: entry.id), master_key)
        with _writing(self.path):
            replace_file(self.path, content)


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path`, for its owner alone, whole or not at all: also after a power cut."""
    # mkstemp makes the file with mode 0600.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot write the keystore {path}: {error.strerror or type(error).__name__}") from None


def _sealed(entries: list[Entry], master_key: MasterKey) -> bytes:
    cipher = AESGCM(master_key.secret)
    stored = []
    for entry in entries:
        one = _StoredEntry(entry.id, entry.workspace, dict(entry.settings), entry.added_at, b"", b"")
        box = _encrypt(cipher, entry.key.get_secret_value().encode(), _entry_context(one))
        one.nonce, one.ciphertext = box.nonce, box.ciphertext
        stored.append(one)
    check = _encrypt(cipher, b"", _context("check"))
    file = _File(VERSION, check, stored, _encrypt(cipher, b"", _seal_context(stored)))
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def _opened(text: bytes, master_key: MasterKey, path: Path) -> tuple[Entry, ...]:
    file = _parsed(text, path)
    cipher = AESGCM(master_key.secret)
    if _decrypt(cipher, file.check, _context("check")) is None:
        raise ConfigError(
            f"the master key does not open the keystore {path}",
            hint="It is another keystore's, or an older one from before a rotation.",
        )
    entries = []
    for stored in file.entries:
        key = _decrypt(cipher, _Box(stored.nonce, stored.ciphertext), _entry_context(stored))
        if key is None:
            raise _tampered(f"the entry {stored.id!r} of the keystore {path}")
        entries.append(Entry(stored.id, stored.workspace, stored.settings, stored.added_at, SecretStr(key.decode())))
    if _decrypt(cipher, file.seal, _seal_context(file.entries)) is None:
        raise _tampered(f"the list of entries of the keystore {path}")
    return tuple(entries)


def _parsed(text: bytes, path: Path) -> _File:
    try:
        version = msgspec.json.decode(text, type=_AnyVersion).version
        if version == VERSION:
            return msgspec.json.decode(text, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The cause may quote the file.
        raise ConfigError(f"{path} is not a keystore, or it is damaged", hint=_RESTORE) from None
    raise ConfigError(
        f"the keystore {path} has version {version}; this shipper knows version {VERSION}", hint="Upgrade the shipper."
    )


def _tampered(what: str) -> ConfigError:
    return ConfigError(f"{what} was changed by something else than the shipper", hint=_RESTORE)


_RESTORE = "Restore it from a copy you trust, or remove it and add the sources again with new keys."


def _encrypt(cipher: AESGCM, plain: bytes, context: bytes) -> _Box:
    nonce = os.urandom(_NONCE_BYTES)
    return _Box(nonce, cipher.encrypt(nonce, plain, context))


def _decrypt(cipher: AESGCM, box: _Box, context: bytes) -> bytes | None:
    """None when key, context or ciphertext are not those of the encryption."""
    try:
        return cipher.decrypt(box.nonce, box.ciphertext, context) if len(box.nonce) == _NONCE_BYTES else None
    except InvalidTag:
        return None


def _context(kind: str, *parts: object) -> bytes:
    """What a box is bound to. The standard library's JSON, with sorted keys and in ASCII, is the same in any version.

    Another library's would tie every keystore to how that library writes today.
    """
    return json.dumps([_FORMAT, VERSION, kind, *parts], sort_keys=True, separators=(",", ":")).encode()


def _entry_context(entry: _StoredEntry) -> bytes:
    return _context("entry", entry.id, entry.workspace, entry.settings, entry.added_at)


def _seal_context(entries: list[_StoredEntry]) -> bytes:
    return _context("seal", [[one.id, one.nonce.hex(), one.ciphertext.hex()] for one in entries])
