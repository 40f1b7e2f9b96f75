"""Detection rules: pairs of files `<id>.sql` and `<id>.toml` in one folder, found without registration.

The SQL returns one row per event that proves a match, with the columns in REQUIRED; it may return the other columns of
`openai_audit_logs` too, and no others. The engine folds the rows into findings: one per workspace, `entity` and bucket
of eventTime. `entity` says who or what the finding is about, `detail` what there is to say about this event, or ''.

So that it makes no difference how time is cut into windows, a rule keeps to three lines:

1. What it finds has an event in the window: it reads `openai_audit_received(from, to)`, or it reads
   `openai_audit_around(from, to, seconds)` and asks that one of the events of a match has receivedAt >= {from}. Nothing
   else is compared with receivedAt, and nothing with the clock.
2. One more event never takes a match away. What must be absent (a baseline) is looked for well before the event, in a
   time of which the last event has arrived.
3. `types` names the event types of which a match needs one in the window. The rule is not asked about a window that has
   none of them.

Whoever is looked for can choose some of what is in an event: its payload is read from READABLE. Any second from 1970 to
2106 may be an eventTime: they are added and subtracted as Int64 and clamped.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from shipper.config import Settings, suggest
from shipper.detection_settings import ParameterValue, Severity
from shipper.durations import parse_duration
from shipper.errors import ConfigError

PACK = Path(__file__).parent / "rules"

# What the engine reads of a rule's rows, with the types it must have.
REQUIRED: Mapping[str, str] = {
    "workspaceID": "String",
    "sourceID": "String",
    "id": "String",
    "eventTime": "DateTime",
    "eventType": "String",
    "actorUserEmail": "String",
    "actorUserID": "String",
    "serviceAccountID": "String",
    "apiKeyID": "String",
    "srcIP": "String",
    "resources": "Array(String)",
    "entity": "String",
    "detail": "String",
}
# The alias by which a rule's SQL reads payloads. JSON functions read nothing of a document that has half a surrogate
# pair, a byte that is no UTF-8 or a number over 64 bits in it, and some of what a client sends is in the document.
READABLE = r"""if(isValidJSON(rawLog), rawLog, replaceRegexpAll(
    replaceRegexpAll(toValidUTF8(rawLog), '\\\\u[dD][89a-fA-F][0-9a-fA-F]{2}', '\\\\ufffd'),
    '([:,\\[]\\s*-?)([0-9.]+[eE]\\+?[0-9]{3,}|[0-9]{20,})', '\\19223372036854775807')) AS readable"""
# Bound by the engine in every query.
WINDOW = {"from": "DateTime", "to": "DateTime"}

_ID = re.compile(r"[a-z][a-z0-9_]{2,63}")
_HOLE = re.compile(r"\{(\w+):([^{}]+)\}")
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_TYPES: Mapping[str, type[Any]] = {"String": str, "UInt32": int, "Float64": float, "Array(String)": list}


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A parameter of a rule: ClickHouse type (String, UInt32, Float64, Array(String)), default, and what it is for."""

    type: str
    default: ParameterValue
    help: str


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event of a case, or several: see `cases`."""

    type: str = ""
    at: str = "0s"
    late: str = "0s"
    times: int = 1
    every: str = "1s"
    user: str = ""
    email: str = ""
    ip: str = ""
    country: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    user_agent: str = "Mozilla/5.0"
    ja4: str = ""
    key: str = ""
    service_account: str = ""
    project: str = ""
    payload: dict[str, Any] | None = None
    columns: dict[str, Any] = {}
    odd: str = ""
    table: str = ""
    row: dict[str, Any] = {}


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Events on which the rule fires, or stays silent. `entities` are the entities of the findings, sorted.

    `proof` is the number of events that prove them together, when it is not all whose type is in the rule's `types`.
    """

    why: str
    events: list[Event]
    entities: list[str] = []
    proof: int | None = None
    parameters: dict[str, ParameterValue] = {}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    description: str
    severity: Severity
    risk: int
    entity: str
    bucket: str
    runbook: list[str]
    false_positives: list[str]
    blind_spots: list[str]
    firing: list[Case]
    silent: list[Case]
    attack: list[str] = []
    types: list[str] = []
    parameters: dict[str, Parameter] = {}


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule as it will run: `values` are its parameters' values in this installation. `bucket` is in seconds.

    `attack` holds `tactic/technique`, such as `TA0006/T1110`.
    """

    id: str
    title: str
    description: str
    severity: Severity
    risk: int
    entity: str
    bucket: int
    types: frozenset[str]
    attack: tuple[str, ...]
    runbook: tuple[str, ...]
    false_positives: tuple[str, ...]
    blind_spots: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    values: Mapping[str, ParameterValue]
    firing: tuple[Case, ...]
    silent: tuple[Case, ...]
    sql: str
    path: Path

    @property
    def tactics(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(pair.partition("/")[0] for pair in self.attack))

    @property
    def techniques(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(pair.partition("/")[2] for pair in self.attack))

    @property
    def without_comments(self) -> str:
        return _COMMENT.sub(" ", self.sql)

    @property
    def statement(self) -> str:
        """The SQL without its comments and what its string literals say: what it does, for whoever checks it."""
        return re.sub(r"'(?:[^'\\]|\\.|'')*'", "''", self.without_comments)

    def holes(self) -> dict[str, str]:
        """The parameters that the SQL uses, with the types it gives them."""
        return dict(_HOLE.findall(self.without_comments))


def load(path: Path) -> Rule:
    """The rule of a `.toml` file and of the `.sql` beside it. Raises ConfigError, which names the file."""
    sql = path.with_suffix(".sql")
    if not _ID.fullmatch(path.stem):
        raise ConfigError(f"{path}: a rule's id is 3 to 64 lower-case letters, digits and '_'")
    try:
        file = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
        text = sql.read_text(encoding="utf-8").strip()
        bucket = int(parse_duration(file.bucket).total_seconds())
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename} is missing", hint="A rule is a pair: <id>.sql and <id>.toml.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not 60 <= bucket <= 366 * 86400 or not 0 <= file.risk <= 100:
        raise ConfigError(f"{path}: expected a bucket of 1m to 366d and a risk of 0 to 100")
    if text.endswith(";"):
        raise ConfigError(f"{sql}: the query ends in a semicolon", hint="Leave it out: the engine wraps the query.")
    for name, parameter in file.parameters.items():
        if name in WINDOW or name == "bucket":
            raise ConfigError(f"{path}: the engine binds {name!r} itself")
        check_value(parameter, parameter.default, f"{path}: parameters.{name}")
    return Rule(
        id=path.stem,
        title=file.title,
        description=file.description.strip(),
        severity=file.severity,
        risk=file.risk,
        entity=file.entity,
        bucket=bucket,
        types=frozenset(file.types),
        attack=tuple(file.attack),
        runbook=tuple(file.runbook),
        false_positives=tuple(file.false_positives),
        blind_spots=tuple(file.blind_spots),
        parameters=file.parameters,
        values={name: parameter.default for name, parameter in file.parameters.items()},
        firing=tuple(file.firing),
        silent=tuple(file.silent),
        sql=text,
        path=path,
    )


def check_value(parameter: Parameter, value: ParameterValue, where: str) -> None:
    """Raise ConfigError unless the value is of the parameter's type."""
    kind = _TYPES.get(parameter.type)
    if kind is None:
        raise ConfigError(f"{where}: expected a type of {', '.join(_TYPES)}, got {parameter.type!r}")
    fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    if kind is int:
        fits = fits and isinstance(value, int) and 0 <= value < 2**32
    if kind is list:
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if not fits:
        raise ConfigError(f"{where}: expected {parameter.type}, got {type(value).__name__}")


def load_folders(folders: Iterable[Path]) -> list[Rule]:
    """Every rule of the folders, by id. Raises ConfigError for two of one id, and a folder that is not there."""
    found: dict[str, Rule] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"rule_folders: {folder} is not a folder")
        alone = {path.stem for path in folder.glob("*.sql")} - {path.stem for path in folder.glob("*.toml")}
        if alone:
            raise ConfigError(
                f"{folder / min(alone)}.toml is missing", hint="A rule is a pair: <id>.sql and <id>.toml."
            )
        for path in sorted(folder.glob("*.toml")):
            rule = load(path)
            if rule.id in found:
                raise ConfigError(f"two rules are called {rule.id!r}: {found[rule.id].path} and {path}")
            found[rule.id] = rule
    return [found[name] for name in sorted(found)]


def configured(settings: Settings, only: Sequence[str] = ()) -> list[Rule]:
    """The enabled rules with the settings' changes; of `only` also those that are switched off, and no others.

    Raises ConfigError for a rule or a parameter that does not exist.
    """
    rules = load_folders((PACK, *settings.rule_folders))
    known = {rule.id for rule in rules}
    for name in (*settings.rules, *(one.rule for one in settings.suppressions), *only):
        if name not in known:
            raise ConfigError(f"there is no rule {name!r}", hint=_near(name, known))
    for route in settings.alert_routes:
        for name in set(route.rules) - known:
            raise ConfigError(f"alert_routes: {route.name}: there is no rule {name!r}", hint=_near(name, known))
    shared = {name for rule in rules for name in rule.parameters}
    for name in set(settings.rule_parameters) - shared:
        raise ConfigError(f"rule_parameters: no rule has a parameter {name!r}", hint=_near(name, shared))
    made = [_with_settings(rule, settings) for rule in rules]
    return [rule for rule in made if (rule.id in only if only else _enabled(rule, settings))]


def _enabled(rule: Rule, settings: Settings) -> bool:
    return rule.id not in settings.rules or settings.rules[rule.id].enabled


def _near(name: str, known: set[str]) -> str:
    hint = suggest(name, known)
    return hint if hint.startswith("Did") else "`shipper detect --list` shows the rules."


def _with_settings(rule: Rule, settings: Settings) -> Rule:
    own = settings.rules.get(rule.id)
    given = {name: value for name, value in settings.rule_parameters.items() if name in rule.parameters}
    if own is not None:
        for name in set(own.parameters) - set(rule.parameters):
            raise ConfigError(f"rules.{rule.id}: no parameter {name!r}", hint=_near(name, set(rule.parameters)))
        given |= own.parameters
    for name, value in given.items():
        check_value(rule.parameters[name], value, f"rules.{rule.id}.parameters.{name}")
    return with_values(rule, given, own.severity if own is not None else None)


def with_values(rule: Rule, given: Mapping[str, ParameterValue], severity: Severity | None = None) -> Rule:
    """The rule with other values for some parameters."""
    return msgspec.structs.replace(rule, values={**rule.values, **given}, severity=severity or rule.severity)
