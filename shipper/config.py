"""Settings: each a field with its default and its help. settings_file.py says where their values come from.

The README's table and the Kubernetes manifests are tested against this file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from shipper.detection_settings import ParameterValue, RouteSettings, RuleSettings, SuppressionSettings, unique_names
from shipper.durations import format_duration, parse_duration
from shipper.errors import ConfigError
from shipper.masterkey import parse_master_key, read_master_key
from shipper.model import Source, SourceID, WorkspaceID
from shipper.secret_text import SECRET, check_key, read_secret, redact_url

if TYPE_CHECKING:
    from shipper.keystore import Entry, Keystore

# ENV names shared with OpenAI's official SDKs, so that one environment serves both.
_ENV_ADMIN_KEY = "OPENAI_ADMIN_KEY"
_ENV_ADMIN_KEY_FILE = "OPENAI_ADMIN_KEY_FILE"


# Settings of the source that is described without `sources`.
SINGLE_SOURCE = frozenset(
    {
        "admin_key",
        "admin_key_file",
        "organization",
        "base_url",
        "workspace",
        "source_id",
        "tenant_lane",
        "retention_days",
    }
)


def _split_paths(value: object) -> object:
    return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value


Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split_paths)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration)]


class SourceSettings(BaseModel):
    """One organization. In the YAML file, an entry of `sources`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field("openai", min_length=1, description="Stable id of this connection: the column sourceID.")
    workspace: str = Field("default", min_length=1, description="The column workspaceID.")
    admin_key: SecretStr | None = Field(None, description="Admin key (sk-admin-…). Better: admin_key_file.")
    admin_key_file: Path | None = Field(None, description="File that holds the admin key.")
    organization: str | None = Field(None, description="Sent as the OpenAI-Organization header when set.")
    base_url: str = Field("https://api.openai.com/v1", description="Where the Admin API is.")
    tenant_lane: bool = Field(default=True, description="Also read tenant-scoped events (tenant_only=true).")
    retention_days: int = Field(
        0, ge=0, le=18250, description="Days after receipt at which ClickHouse deletes a row; 0 keeps it."
    )

    @property
    def source(self) -> Source:
        return Source(WorkspaceID(self.workspace), SourceID(self.id), self.retention_days)

    def read_admin_key(self) -> SecretStr:
        """The key, from the file when one is named. Raises ConfigError when there is none or it is unreadable."""
        if self.admin_key_file is not None:
            return read_secret(self.admin_key_file, what=f"the admin key of source {self.id!r}")
        if self.admin_key is None or not self.admin_key.get_secret_value().strip():
            raise ConfigError(
                f"no admin key for source {self.id!r}",
                hint=f"Set {_ENV_ADMIN_KEY_FILE} (in `sources`: admin_key_file) to a file that holds it. An "
                "organization owner makes one under Organization settings > Admin keys. To look around without one: "
                "shipper demo",
            )
        return check_key(self.admin_key.get_secret_value(), self.id)


class ListSettings(BaseModel):
    """A list of exact values, CIDRs or regexes that fills `enrichments`. An entry of `lists`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="The provider in `enrichments`.")
    path: Path = Field(description="A YAML or NDJSON file of rules.")


class Settings(BaseSettings):
    """All settings. The environment name of a field is SHIPPER_ and its name in capitals."""

    model_config = SettingsConfigDict(
        env_prefix="SHIPPER_",
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    clickhouse_url: str = Field(
        "chdb:shipper-data",
        repr=False,
        description="Where rows go: http://user@host:8123/database, https://…, or chdb:DIRECTORY (embedded).",
    )
    clickhouse_password: SecretStr | None = Field(None, description="Password. Better: clickhouse_password_file.")
    clickhouse_password_file: Path | None = Field(None, description="File that holds the ClickHouse password.")
    clickhouse_ca_file: Path | None = Field(
        None, description="CA certificates to trust for https besides the system's, PEM."
    )
    clickhouse_client_cert_file: Path | None = Field(
        None, description="Client certificate for ClickHouse, PEM. Without a password it is what the user logs in with."
    )
    clickhouse_client_key_file: Path | None = Field(
        None, description="Private key of that certificate, PEM, when it is not in the same file."
    )
    clickhouse_timeout: Duration = Field(timedelta(minutes=5), description="Longest wait for one ClickHouse answer.")
    auto_migrate: bool = Field(default=True, description="Apply missing migrations at the start of a run.")

    sources: tuple[SourceSettings, ...] = Field((), description="The organizations to read (YAML file only).")
    admin_key: SecretStr | None = Field(
        None, validation_alias=_ENV_ADMIN_KEY, description="Admin key of the single source."
    )
    admin_key_file: Path | None = Field(
        None,
        validation_alias=_ENV_ADMIN_KEY_FILE,
        description="File with the admin key of the single source.",
    )
    organization: str | None = Field(
        None,
        validation_alias="OPENAI_ORG_ID",
        description="OpenAI-Organization header of the single source.",
    )
    base_url: str = Field(
        "https://api.openai.com/v1",
        validation_alias="OPENAI_BASE_URL",
        description="Where the Admin API of the single source is.",
    )
    keystore: Path | None = Field(None, description="File of `shipper sources`: more organizations, keys encrypted.")
    master_key_file: Path | None = Field(None, description="File with the keystore's master key, mode 0600.")
    master_key: SecretStr | None = Field(None, description="The keystore's master key (environment only).")
    workspace: str = Field("default", min_length=1, description="workspaceID of the single source.")
    source_id: str = Field("openai", min_length=1, description="sourceID of the single source.")
    tenant_lane: bool = Field(default=True, description="Read tenant-scoped events of the single source too.")
    retention_days: int = Field(0, ge=0, le=18250, description="Retention of the single source; 0 keeps rows.")

    proxy: str | None = Field(
        None,
        repr=False,
        description="HTTP proxy for the API and for alerts. Default: HTTPS_PROXY from the environment.",
    )
    ca_file: Path | None = Field(
        None, description="CA certificates to trust for the API, and no others, PEM; for alerts besides the system's."
    )
    client_cert_file: Path | None = Field(None, description="Client certificate for the API, PEM.")
    client_key_file: Path | None = Field(
        None, description="Private key of that certificate, PEM, when it is not in the same file."
    )
    allow_plaintext: bool = Field(
        default=False, description="Send a key, a password or alerts over plain http to a host other than this one."
    )
    request_timeout: Duration = Field(
        timedelta(seconds=60), description="Longest wait for one answer of the API or of a receiver of alerts."
    )
    requests_per_second: float = Field(5.0, gt=0, le=10_000, description="Ceiling for all requests of one key.")
    retries: int = Field(6, ge=0, le=20, description="How often a failed API request, insert or alert is tried again.")
    retry_ceiling: Duration = Field(timedelta(minutes=2), description="Longest pause before a retry.")

    lookback: Duration = Field(timedelta(days=30), description="How far back the first run reads.")
    overlap: Duration = Field(timedelta(hours=1), description="What each run re-reads, for events that show up late.")
    resweep: Duration = Field(
        timedelta(days=2), description="How late an event may show up and still be found; 0: off."
    )
    window: Duration = Field(timedelta(days=1), description="Longest window drained at once.")
    concurrency: int = Field(4, ge=1, le=64, description="Windows drained at the same time, per source.")

    lease_ttl: Duration = Field(
        timedelta(minutes=1), description="How long a run that vanished keeps others from its source."
    )
    lease_wait: Duration = Field(
        timedelta(minutes=1), description="How long a run waits for another one of its source; then exit code 75."
    )

    batch_rows: int = Field(8_000, ge=1, le=1_000_000, description="Rows per insert, at most.")
    batch_bytes: int = Field(32 * 1024 * 1024, ge=1024, description="Bytes of raw events per insert, at most.")
    batch_age: Duration = Field(timedelta(seconds=30), description="Longest time a row waits for its insert.")

    geoip_databases: Paths = Field((), description=".mmdb files, most trusted first (`:` between them).")
    lists: tuple[ListSettings, ...] = Field((), description="Lists that fill `enrichments` (YAML file only).")

    rule_folders: Paths = Field((), description="Folders of own detection rules beside the pack (`:` between them).")
    rules: dict[str, RuleSettings] = Field({}, description="Changes to single rules, by id (YAML file only).")
    rule_parameters: dict[str, ParameterValue] = Field(
        {}, description="Parameters of all rules that have one of that name, such as own_domains (YAML file only)."
    )
    suppressions: tuple[SuppressionSettings, ...] = Field(
        (), description="Findings that are expected until a day (YAML file only)."
    )
    alert_routes: Annotated[tuple[RouteSettings, ...], AfterValidator(unique_names)] = Field(
        (), description="Where findings are sent (YAML file only)."
    )
    detect_lookback: Duration = Field(timedelta(days=1), description="How far back of receivedAt a new rule looks.")
    detect_step: Duration = Field(timedelta(days=1), description="Longest window that detections look at in one query.")
    detect_delay: Duration = Field(
        timedelta(seconds=30), description="How far the clocks of shippers and ClickHouse may differ."
    )
    detect_timeout: Duration = Field(timedelta(minutes=1), description="Longest time for the query of a rule.")
    detect_memory: int = Field(
        2 * 1024 * 1024 * 1024, ge=64 * 1024 * 1024, description="Bytes of memory for the query of a rule."
    )

    metrics_listen: str | None = Field(
        None, description="Where `watch` serves GET /metrics, such as 127.0.0.1:9464. Anyone who reaches it may read."
    )
    metrics_file: Path | None = Field(
        None, description="Textfile of metrics for the node exporter (*.prom), written after every run and pass."
    )

    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, else json.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What is logged at least.")

    @field_validator("overlap", "window", "request_timeout", "clickhouse_timeout", "detect_step", "detect_timeout")
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if value <= timedelta():
            raise ValueError("must be at least 1s")
        return value

    @field_validator("lease_ttl")
    @classmethod
    def _renewable(cls, value: timedelta) -> timedelta:
        if not timedelta(seconds=2) <= value <= timedelta(days=1):
            raise ValueError("must be 2s to 1d")
        return value

    @field_validator("metrics_listen")
    @classmethod
    def _listenable(cls, value: str | None) -> str | None:
        if value is not None:
            host_and_port(value)
        return value

    @field_validator("clickhouse_url")
    @classmethod
    def _usable_url(cls, value: str) -> str:
        scheme, _, rest = value.partition(":")
        if scheme not in {"http", "https", "chdb"} or not rest.strip("/"):
            raise ValueError("expected http://user@host:8123/database, https://… or chdb:DIRECTORY")
        try:
            parts = urlsplit(value)
            usable = scheme == "chdb" or (
                bool(parts.hostname) and parts.port != 0 and "@" not in value[value.find("@") + 1 :]
            )
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(
                "is not a URL; a password in it must be percent-encoded (better: clickhouse_password_file)"
            )
        return value

    @model_validator(mode="after")
    def _one_way_to_name_sources(self) -> Self:
        ids = [(source.workspace, source.id) for source in self.sources]
        if twice := {pair for pair in ids if ids.count(pair) > 1}:
            raise ValueError(f"two sources are both called {min(twice)}; each needs an id of its own")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values passed to the constructor, then the environment. `load_settings` puts the file in its place."""
        return (init_settings, env_settings)

    def all_sources(self) -> tuple[SourceSettings, ...]:
        """The `sources` of the file, or the single source that the environment describes, and those of the keystore.

        Without `sources` and without a key in the environment, those of the keystore alone. Reads the keystore anew at
        each call. Raises ConfigError when it cannot be opened, is empty with nothing beside it, or names a source that
        is named elsewhere too.
        """
        beside = self.sources_beside_keystore()
        if self.keystore is None:
            return beside
        stored = tuple(source_of(entry) for entry in self.open_keystore().entries())
        if twice := {source.id for source in beside} & {source.id for source in stored}:
            raise ConfigError(
                f"the source {min(twice)!r} is in the keystore {self.keystore} and outside of it",
                hint="Take it out of one: `shipper sources remove`, or the configuration file or the environment.",
            )
        if not beside and not stored:
            raise ConfigError(f"the keystore {self.keystore} holds no source", hint="`shipper sources add` adds one.")
        return beside + stored

    def sources_beside_keystore(self) -> tuple[SourceSettings, ...]:
        """The `sources` of the file, or the single source; beside a keystore it counts only when it has a key."""
        if self.sources:
            return self.sources
        if self.keystore is not None and self.admin_key is None and self.admin_key_file is None:
            return ()
        return (
            SourceSettings(
                id=self.source_id,
                workspace=self.workspace,
                admin_key=self.admin_key,
                admin_key_file=self.admin_key_file,
                organization=self.organization,
                base_url=self.base_url,
                tenant_lane=self.tenant_lane,
                retention_days=self.retention_days,
            ),
        )

    def open_keystore(self) -> Keystore:
        """The keystore with its master key, from the file when one is named. Raises ConfigError without either."""
        from shipper.keystore import Keystore  # noqa: PLC0415 - brings the cryptography that few need

        if self.keystore is None:
            raise ConfigError(
                "no keystore is configured", hint="Say with SHIPPER_KEYSTORE, or keystore in the file, where it is."
            )
        if self.master_key_file is not None:
            return Keystore(self.keystore, read_master_key(self.master_key_file))
        if self.master_key is None:
            raise ConfigError(
                "no master key for the keystore",
                hint="Set SHIPPER_MASTER_KEY_FILE to a file that holds it, or SHIPPER_MASTER_KEY. "
                "`shipper sources new-master-key FILE` makes one.",
            )
        return Keystore(self.keystore, parse_master_key(self.master_key.get_secret_value(), where="SHIPPER_MASTER_KEY"))

    def clickhouse_url_with_password(self) -> SecretStr:
        """The URL with the password filled in. Raises ConfigError when the password file cannot be read."""
        password = self.clickhouse_password
        if self.clickhouse_password_file is not None:
            password = read_secret(self.clickhouse_password_file, what="the ClickHouse password")
        parts = urlsplit(self.clickhouse_url)
        if password is None or parts.scheme == "chdb":
            return SecretStr(self.clickhouse_url)
        host = parts.netloc.rpartition("@")[2]
        user = quote(parts.username or "default", safe="%")
        netloc = f"{user}:{quote(password.get_secret_value(), safe='')}@{host}"
        return SecretStr(urlunsplit(parts._replace(netloc=netloc)))

    def public(self) -> dict[str, Any]:
        """Every setting as plain data, secrets as `<SECRET>`: what `config show` prints."""
        unused = set(SINGLE_SOURCE) if self.sources else set()
        return {name: _public(name, value) for name, value in self.model_dump(mode="json", exclude=unused).items()}


def host_and_port(text: str) -> tuple[str, int]:
    """The parts of `127.0.0.1:9464` or `[::1]:9464`. Raises ValueError for anything else."""
    match = re.fullmatch(r"(?:([^\s:/@\[\]]+)|\[([0-9A-Fa-f:.]+)\]):(\d{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError("expected an address and a port, such as 127.0.0.1:9464 or [::1]:9464")
    return match[1] or match[2], int(match[3])


def _public(name: str, value: Any) -> Any:
    if name in {"admin_key", "clickhouse_password", "master_key", "url", "key"}:
        return None if value is None else SECRET
    if name in {"clickhouse_url", "base_url", "proxy"} and isinstance(value, str) and not value.startswith("chdb:"):
        return redact_url(value)
    if isinstance(value, Mapping):
        return {key: _public(key, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_public(name, inner) for inner in value]
    return value


def entry_of(source: SourceSettings, added_at: int) -> Entry:
    """A source as the keystore holds it."""
    from shipper.keystore import Entry  # noqa: PLC0415 - as above

    settings = source.model_dump(mode="json", exclude={"id", "workspace", "admin_key", "admin_key_file"})
    return Entry(source.id, source.workspace, settings, added_at, source.read_admin_key())


def source_of(entry: Entry) -> SourceSettings:
    """A source out of the keystore. Raises ConfigError for a setting that this version does not know."""
    try:
        return SourceSettings(
            **{"id": entry.id, "workspace": entry.workspace, "admin_key": entry.key, **dict(entry.settings)}
        )
    except ValidationError as error:
        raise ConfigError(explain(error, f"the keystore's source {entry.id!r}")) from None


def name_of(text: str) -> str:
    """As much of an unknown name as can be one: without its blank, `admin_key:sk-…` is a name to YAML."""
    match = re.match(r"[A-Za-z0-9_]{1,64}", text)
    return match[0] if match else "…"


def suggest(name: str, known: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f"Did you mean {near[0]!r}?" if near else "`shipper config show` lists every setting."


_ENTRIES: Mapping[str, type[BaseModel]] = {
    "lists": ListSettings,
    "rules": RuleSettings,
    "suppressions": SuppressionSettings,
    "alert_routes": RouteSettings,
}


def explain(error: ValidationError, where: str) -> str:
    """One line per problem: the setting's path and what was expected. Never the input: it may be a secret."""
    lines = []
    for problem in error.errors(include_input=False, include_context=False, include_url=False):
        name = ".".join(name_of(str(part)) for part in problem["loc"]) or "settings"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            model = _ENTRIES.get(str(problem["loc"][0]), SourceSettings)
            message = f"unknown setting. {suggest(name_of(str(problem['loc'][-1])), set(model.model_fields))}"
        lines.append(f"{name}: {message}")
    return f"{where}: " + "; ".join(lines)
