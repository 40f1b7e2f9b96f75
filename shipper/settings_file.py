"""Where settings come from: defaults, then one YAML file, then the environment, then the command line.

An unknown name is refused, with the nearest known one as a suggestion.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from shipper.config import SINGLE_SOURCE, Settings, explain, name_of, suggest
from shipper.errors import ConfigError
from shipper.secret_text import unreadable


def load_settings(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from the YAML file (`path`, or SHIPPER_CONFIG) and the environment.

    `overrides` come from the command line and win over the environment, which wins over the file. Raises ConfigError
    for a file that is not there, is not YAML, or names an unknown setting.
    """
    path = path or (Path(os.environ["SHIPPER_CONFIG"]) if os.environ.get("SHIPPER_CONFIG") else None)
    values = _read_yaml(path) if path else {}
    where = str(path) if path else "the environment"
    _refuse_unknown(values, set(Settings.model_fields), where)
    if values.get("master_key") is not None:
        raise ConfigError(
            f"{where}: master_key does not belong into the configuration file",
            hint="Name a file of its own with master_key_file, or set SHIPPER_MASTER_KEY.",
        )
    _refuse_unknown_environment()
    if beside := sorted(SINGLE_SOURCE & values.keys()) if values.get("sources") else []:
        raise ConfigError(
            f"{where}: {beside[0]} describes a single source, and the file lists sources",
            hint=f"Say it in the entries of `sources`: {beside[0].removeprefix('source_')}.",
        )
    values = {name: value for name, value in values.items() if not _in_environment(name)}
    try:
        return Settings(**{**values, **(overrides or {})})
    except ValidationError as error:
        raise ConfigError(explain(error, where)) from None
    except SettingsError as error:
        raise ConfigError(f"the environment: {error}", hint="Lists of objects belong in the YAML file.") from None


# Two ways to give one secret: the environment's wins over the file's, whichever each uses.
_SAME_SECRET = tuple((name, f"{name}_file") for name in ("admin_key", "clickhouse_password", "master_key"))


def _in_environment(name: str) -> bool:
    names = next((pair for pair in _SAME_SECRET if name in pair), (name,))
    return any(os.environ.get(environment_name(one)) for one in names)


def environment_name(field: str) -> str:
    """The environment variable of a setting: OPENAI_… where the official SDK has a name for it, else SHIPPER_…."""
    alias = Settings.model_fields[field].validation_alias
    return alias if isinstance(alias, str) else f"SHIPPER_{field.upper()}"


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415 - most have no such file, and start-up is paid by every run

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the configuration file {path}: {unreadable(error)}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # The mark of a YAML error quotes the line, which may hold a key: give its place only.
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: not valid YAML") from None
    except (ValueError, RecursionError):
        # A date or a number that is none, or thousands of brackets; the reason may quote the value.
        raise ConfigError(f"{path}: not valid YAML") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected settings as `name: value`, got a {type(values).__name__}")
    return {str(name): value for name, value in values.items()}


def _refuse_unknown(values: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in values:
        if name not in known:
            shown = name_of(name)
            raise ConfigError(f"{where}: unknown setting {shown!r}", hint=suggest(shown, known))


def _refuse_unknown_environment() -> None:
    known = {environment_name(name) for name in Settings.model_fields} | {"SHIPPER_CONFIG"}
    for name in os.environ:
        # Kubernetes injects SHIPPER_SERVICE_HOST and its like when a Service is called `shipper`.
        if name.startswith("SHIPPER_") and name not in known and not re.search(r"_(SERVICE|PORT)(_|$)", name):
            raise ConfigError(f"unknown setting {name} in the environment", hint=suggest(name, known))
