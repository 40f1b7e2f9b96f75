"""Settings of detections and alerts: entries of `rules`, `suppressions` and `alert_routes` in the YAML file."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from shipper.secret_text import read_secret


class Severity(StrEnum):
    """How grave a finding is. `rank` orders them: 0 is the least grave."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


ParameterValue = str | int | float | list[str]


class RuleSettings(BaseModel):
    """What an installation changes of one rule. In the YAML file, an entry of `rules` under the rule's id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(default=True, description="False leaves the rule out.")
    severity: Severity | None = Field(None, description="Instead of the rule's own: info, low, medium, high, critical.")
    parameters: dict[str, ParameterValue] = Field({}, description="Values for the rule's parameters, by name.")


def _pattern(value: object) -> object:
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"expected a regular expression: {error}") from None
    return value


Pattern = Annotated[str, BeforeValidator(_pattern)]


class SuppressionSettings(BaseModel):
    """Findings that are expected for a while: kept and listed, but not sent. An entry of `suppressions`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: str = Field(min_length=1, description="Id of the rule.")
    entity: Pattern = Field(description="Regular expression that matches the whole entity of the finding.")
    until: date = Field(description="The last day it holds (UTC). After that the findings are sent again.")
    reason: str = Field(min_length=1, description="Why, for whoever reads it later.")

    def holds(self, rule: str, entity: str, now: float) -> bool:
        """Whether a finding of the rule about the entity is suppressed at `now`, Unix seconds."""
        last = datetime.combine(self.until, time.max, UTC).timestamp()
        return rule == self.rule and now <= last and re.fullmatch(self.entity, entity) is not None


class RouteSettings(BaseModel):
    """Where findings are sent. An entry of `alert_routes`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=64, description="Name of the route, for `shipper alerts test`.")
    type: Literal["slack", "pagerduty", "alertmanager", "webhook", "stdout"] = Field(
        description="slack, pagerduty, alertmanager, webhook or stdout."
    )
    url: SecretStr | None = Field(
        None,
        description="Slack's webhook URL, Alertmanager's base URL, or where the webhook is. PagerDuty has a default.",
    )
    url_file: Path | None = Field(None, description="File that holds the URL: Slack's is a secret.")
    key: SecretStr | None = Field(None, description="PagerDuty's integration key, or the webhook's signing secret.")
    key_file: Path | None = Field(None, description="File that holds it.")
    min_severity: Severity = Field(Severity.MEDIUM, description="Send findings that are at least so grave.")
    rules: tuple[str, ...] = Field((), description="Only findings of these rules. Default: of all.")

    @field_validator("name")
    @classmethod
    def _plain(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", value):
            raise ValueError("expected letters, digits, '_', '.' and '-' only")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type in {"slack", "alertmanager", "webhook"} and self.url is None and self.url_file is None:
            raise ValueError(f"a {self.type} route needs url or url_file")
        if self.type in {"pagerduty", "webhook"} and self.key is None and self.key_file is None:
            raise ValueError(f"a {self.type} route needs key or key_file")
        return self

    def read_url(self, default: str = "") -> str:
        """The URL, from its file when one is named. Raises ConfigError when the file cannot be read."""
        return self._secret(self.url, self.url_file, "the URL", default)

    def read_key(self) -> str:
        """The key, from its file when one is named; empty for a type without. Raises ConfigError as `read_url`."""
        return self._secret(self.key, self.key_file, "the key", "")

    def _secret(self, value: SecretStr | None, path: Path | None, what: str, default: str) -> str:
        if path is not None:
            return read_secret(path, what=f"{what} of alert route {self.name!r}").get_secret_value()
        return value.get_secret_value().strip() if value is not None else default

    def takes(self, rule: str, severity: Severity) -> bool:
        """Whether a finding of this rule and severity is sent here."""
        return severity.rank >= self.min_severity.rank and (not self.rules or rule in self.rules)


def unique_names(routes: tuple[Any, ...]) -> tuple[Any, ...]:
    """The routes, whose names tell them apart. Raises ValueError when two have the same."""
    names = [route.name for route in routes]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two routes are both called {min(twice)!r}")
    return routes
