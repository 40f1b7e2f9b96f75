"""Text that holds secrets: how it is read, and how it is shown."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import SecretStr

from shipper.errors import ConfigError

SECRET = "<SECRET>"  # noqa: S105 - what is shown instead of one

# Everything up to the last @ may be a user and a password, whatever characters are in it.
_USER_INFO = re.compile(
    r"^(?P<scheme>[a-z][a-z0-9+.-]*://)?(?P<user_info>.*)@(?P<rest>[^@]*)$", re.DOTALL | re.IGNORECASE
)
# A user beside a password is shown when it can hardly be a secret itself; a token takes the user's place in some URLs.
_PLAIN_USER = re.compile(r"(?P<user>[A-Za-z][A-Za-z0-9_.-]{0,23}):.+", re.DOTALL)
# What stands where a port belongs and is none: a password whose @ was forgotten or encoded.
_NO_PORT = re.compile(r"^((?:[a-z][a-z0-9+.-]*://)?[^/?#@:\[]*):(?!//|\d{1,5}(?:[/?#]|$))[^/?#]+", re.IGNORECASE)
_PARAMETER = re.compile(r"(?P<name>[?&;#][^=?&;#]*=?)(?P<value>[^?&;#]*)")
_HARMLESS_VALUE = re.compile(r"\d{0,9}|true|false", re.IGNORECASE)
_SECRET_NAME = re.compile(r"pass|pw|pin|secret|token|key|sig|auth|cred|code|otp|session", re.IGNORECASE)


def redact_url(url: str) -> str:
    """The URL as it may be shown. Works on what is no URL too.

    Of what stands before the @ only a plain user name with a password after it is shown; of the query and the fragment
    names with numbers and truth values, unless the name speaks of a secret. The host and the path are shown.
    """
    before = ""
    if match := _USER_INFO.match(url):
        user = _PLAIN_USER.fullmatch(match["user_info"])
        before = f"{match['scheme'] or ''}{user['user'] + ':' if user else ''}{SECRET}@"
        url = match["rest"]
    return before + _PARAMETER.sub(_parameter, _NO_PORT.sub(rf"\1:{SECRET}", url))


def _parameter(match: re.Match[str]) -> str:
    name, value = match["name"], match["value"]
    if not name.endswith("="):
        return f"{name[0]}{SECRET}" if len(name) > 1 else name
    harmless = _HARMLESS_VALUE.fullmatch(value) and not (value and _SECRET_NAME.search(name))
    return f"{name}{value if harmless else SECRET}"


def shown_path(path: Path) -> str:
    """A path for a message, unless it may be the secret itself, put where the path of its file belongs.

    It is shown when something is there, or when it names a folder that is there.
    """
    if _exists(path) or (path.parent != Path() and _exists(path.parent)):
        return str(path)
    if path.is_absolute():
        return f"a path under {next(folder for folder in path.parents if _exists(folder))}"
    return "the path given"


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        # It lies in a folder that we may not enter; that there is one is answer enough.
        return path.parent not in {path, Path()} and _exists(path.parent)
    except (OSError, ValueError):
        return False
    return True


# For a path that is not shown.
NOT_SHOWN_HINT = "Name the file that holds it. The path given is not shown, because it may be the secret itself."


def read_secret(path: Path, *, what: str) -> SecretStr:
    """Read a secret file, without the line end an editor leaves. Raises ConfigError, which never shows the content."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        shown = shown_path(path)
        hint = "" if shown == str(path) else NOT_SHOWN_HINT
        raise ConfigError(f"cannot read {what} from {shown}: {unreadable(error)}", hint=hint) from None
    if not text:
        raise ConfigError(f"cannot read {what} from {path}: the file is empty")
    if any(character.isspace() or not character.isprintable() for character in text):
        raise ConfigError(f"cannot read {what} from {path}: expected one line without blanks")
    return SecretStr(text)


def check_key(key: str, source_id: str) -> SecretStr:
    """A key that was given as text. Raises ConfigError for one with characters that no key has."""
    key = key.strip()
    if any(character.isspace() or not character.isprintable() or not character.isascii() for character in key):
        raise ConfigError(
            f"the admin key of source {source_id!r} holds a blank or a character no key has",
            hint="Paste it again, on one line.",
        )
    return SecretStr(key)


def unreadable(error: OSError | ValueError) -> str:
    """Why a file could not be read as text."""
    return (error.strerror or "unreadable") if isinstance(error, OSError) else "it is not text"
