"""Text that holds secrets: how it is read, and how it is shown."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import SecretStr

from shipper.errors import ConfigError

SECRET = "<SECRET>"  # noqa: S105 - what is shown instead of one

# Everything up to the last @ may be a user and a password, whatever characters are in it.
_USER_INFO = re.compile(r"^(?P<scheme>[a-z]+://)?(?P<user>[^:@/?#]*)(?P<rest>.*)@(?P<host>[^@]*)$", re.DOTALL)
_QUERY_SECRET = re.compile(r"([?&][^=&#]*(?:pass|secret|token|key)[^=&#]*=)[^&#]+", re.IGNORECASE)


def redact_url(url: str) -> str:
    """The URL with its password and the secrets in its query as `<SECRET>`. Works on what is no URL too."""
    if match := _USER_INFO.match(url):
        password = f":{SECRET}" if match["rest"] else ""
        url = f"{match['scheme'] or ''}{match['user']}{password}@{match['host']}"
    return _QUERY_SECRET.sub(rf"\1{SECRET}", url)


def read_secret(path: Path, *, what: str) -> SecretStr:
    """Read a secret file, without the line end an editor leaves. Raises ConfigError, which never shows the content."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        # Without a folder it may be the secret itself, put where its file belongs.
        shown = path if path.exists() or path.parent != Path() else "the path given, which holds no folder"
        raise ConfigError(f"cannot read {what} from {shown}: {unreadable(error)}") from None
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


def unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Why a file could not be read as text."""
    return (error.strerror or "unreadable") if isinstance(error, OSError) else "it is not text"
