"""The master key of the keystore: 256 random bits in a file of its own, or in the environment. Never a passphrase."""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from shipper.errors import ConfigError
from shipper.secret_text import NOT_SHOWN_HINT, shown_path, unreadable

_BYTES = 32
# 32 random bytes hold about 30 different values; fewer than this many come once in 10^15 keys.
_DIFFERENT = 16

_HOW_TO_MAKE = (
    "`shipper sources new-master-key FILE` makes one, and so does: (umask 077; openssl rand -base64 32 > FILE)"
)


@dataclass(frozen=True, slots=True)
class MasterKey:
    """Not shown by repr. Two are equal when they are the same key."""

    secret: bytes = field(repr=False)


def parse_master_key(text: str, *, where: str) -> MasterKey:
    """32 bytes as base64 (either alphabet, with or without `=`) or as 64 hexadecimal digits.

    Raises ConfigError, which never shows the text, for anything else, and for what only looks like a key: a passphrase
    that was encoded, or a pattern. `where` says where the text is from.
    """
    secret = _decoded(text.strip())
    if secret is None or len(secret) != _BYTES:
        raise ConfigError(
            f"{where} is not a master key: expected {_BYTES} bytes as base64 or as hexadecimal digits",
            hint=f"A passphrase cannot be used. {_HOW_TO_MAKE}",
        )
    if len(set(secret)) < _DIFFERENT or all(0x20 <= byte < 0x7F for byte in secret):
        raise ConfigError(
            f"{where} is not a master key: its {_BYTES} bytes are text or a pattern, not random",
            hint=f"A passphrase cannot be used. {_HOW_TO_MAKE}",
        )
    return MasterKey(secret)


def read_master_key(path: Path) -> MasterKey:
    """The master key in a file. Raises ConfigError, also when others than its owner may read the file."""
    content = read_private(path, what="the master key file", missing=_HOW_TO_MAKE)
    return parse_master_key(content.decode("latin-1"), where=f"what {path} holds")


def write_new_master_key(path: Path) -> None:
    """Make a master key and write it to a new file that only its owner may read. Raises ConfigError when it exists."""
    text = base64.b64encode(os.urandom(_BYTES)) + b"\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"cannot make the master key file {path}: {error.strerror or 'unwritable'}") from None


def read_private(path: Path, *, what: str, missing: str) -> bytes:
    """The content of a file that nobody but its owner may read. `missing` is the hint when it is not there.

    Raises ConfigError. Of a file that belongs to somebody else, such as root in a Kubernetes Secret volume, our group
    may read: there is no other way to give it to us.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if _too_open(state.st_mode, state.st_uid, os.geteuid()):
                raise ConfigError(
                    f"{what} {path} may be read or changed by others (mode {stat.S_IMODE(state.st_mode):04o})",
                    hint=f"chmod 600 {path}",
                )
            return file.read()
    except (OSError, ValueError) as error:
        shown = shown_path(path)
        named, hint = (f"{what} {shown}", "") if shown == str(path) else (f"{what} at {shown}", NOT_SHOWN_HINT)
        if isinstance(error, FileNotFoundError):
            raise ConfigError(f"{named} does not exist", hint=f"{missing} {hint}".strip()) from None
        raise ConfigError(f"cannot read {named}: {unreadable(error)}", hint=hint) from None


def _too_open(mode: int, owner: int, user: int) -> bool:
    forbidden = 0o066 if owner == user else 0o026
    return bool(mode & forbidden)


def _decoded(text: str) -> bytes | None:
    """None for what is neither form. 64 characters of base64 would be 48 bytes, so that the two cannot be mixed up."""
    try:
        if len(text) == 2 * _BYTES:
            return bytes.fromhex(text)
        digits = text.rstrip("=").replace("-", "+").replace("_", "/")
        secret = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError:
        return None
    # Characters whose last bits say nothing: no encoder writes them, so somebody made them up.
    return secret if base64.b64encode(secret).decode().rstrip("=") == digits else None
