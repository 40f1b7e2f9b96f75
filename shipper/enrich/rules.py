"""Reads list files: rules over an address or an actor, checked as a whole before the first row is matched.

A rule is `{field: src.ip, cidr: 198.18.0.0/15, data: {site: lab}}`: one field of src.ip, actor.email and actor.id; one
of exact, cidr (src.ip only) and regex; and free keys under data. A `.yaml` or `.yml` file is a list of rules, with
every value taken as text exactly as written. A `.ndjson` or `.jsonl` file is one rule a line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import orjson

from shipper.enrich.addresses import Network, parse_address, parse_network
from shipper.errors import ConfigError


class Field(StrEnum):
    """What a rule can look at; the name in `enrichments`."""

    SRC_IP = "src.ip"
    ACTOR_EMAIL = "actor.email"
    ACTOR_ID = "actor.id"


class Kind(StrEnum):
    """How a rule looks at it; the type in `enrichments`."""

    EXACT = "exact"
    CIDR = "cidr"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `pattern` is as written in the file; `match` is its form for matching, a str for an exact value."""

    field: Field
    kind: Kind
    pattern: str
    match: str | Network | re.Pattern[str]
    data: dict[str, str]


class _RuleError(Exception):
    """What is wrong with one rule, before the place is known; a hint as the second argument."""


_KEYS = ("field", "data", *Kind)


def read_rules(path: Path) -> list[Rule]:
    """All rules of a file, in order. Raises ConfigError naming the file and the entry for the first bad one."""
    rules = []
    for place, entry in _entries(path):
        try:
            rules.append(_rule(entry))
        except _RuleError as error:
            message, *hint = error.args
            raise ConfigError(f"list {path}, {place}: {message}", hint=hint[0] if hint else "") from None
    return rules


def canonical(field: Field, value: str) -> str:
    """The form in which exact values are compared: addresses canonical, e-mail addresses without case."""
    return value.casefold() if field is Field.ACTOR_EMAIL else value


def _entries(path: Path) -> Iterator[tuple[str, object]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"cannot read the list {path}: {error.strerror or 'unreadable'}",
            hint="Set the path of each entry of lists to a file that exists and that this user may read.",
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read the list {path}: it is not UTF-8 text") from None
    if path.suffix in {".yaml", ".yml"}:
        return _yaml_entries(path, text)
    if path.suffix in {".ndjson", ".jsonl"}:
        return _ndjson_entries(path, text)
    raise ConfigError(
        f"cannot read the list {path}: expected a name that ends in .yaml, .yml, .ndjson or .jsonl",
        hint="YAML holds one list of rules, NDJSON one rule a line.",
    )


def _ndjson_entries(path: Path, text: str) -> Iterator[tuple[str, object]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                entry = orjson.loads(line)
            except orjson.JSONDecodeError:
                raise ConfigError(f"list {path}, line {number}: not valid JSON") from None
            yield f"line {number}", entry


def _yaml_entries(path: Path, text: str) -> Iterator[tuple[str, object]]:
    from shipper.enrich.tree import TreeError, read_tree  # noqa: PLC0415 - the YAML library takes a while to load

    try:
        entries = read_tree(text)
    except TreeError as error:
        place = f", line {error.line}" if error.line else ""
        raise ConfigError(f"list {path}{place}: {error.problem}") from None
    if not isinstance(entries, list):
        got = "nothing" if not entries else f"a {'map' if isinstance(entries, dict) else 'text'}"
        raise ConfigError(
            f"list {path}: expected a list of rules, got {got}",
            hint="Each rule starts with a dash; a list without rules is written [].",
        )
    return ((f"entry {number}", entry) for number, entry in enumerate(entries, start=1))


def _rule(entry: object) -> Rule:
    if not isinstance(entry, dict):
        raise _RuleError("expected a rule such as {field: src.ip, exact: 192.0.2.1}")
    for key in entry:
        if key not in _KEYS:
            raise _RuleError(f"unknown key {str(key)[:80]!r}", _suggest(str(key), _KEYS, "A rule has"))
    named = entry.get("field")
    if named not in list(Field):
        raise _RuleError(f"unknown field {str(named)[:80]!r}", _suggest(str(named), tuple(Field), "A field is one of"))
    field = Field(named)
    kinds = [kind for kind in Kind if kind in entry]
    if len(kinds) != 1:
        raise _RuleError(f"expected one of exact, cidr and regex, got {' and '.join(kinds) or 'none'}")
    kind = kinds[0]
    pattern = entry[kind]
    if not isinstance(pattern, str) or not pattern:
        raise _RuleError(f"{kind}: expected text")
    return Rule(field, kind, pattern, _PARSERS[kind](field, pattern), _data(entry.get("data")))


def _exact(field: Field, pattern: str) -> str:
    if field is not Field.SRC_IP:
        return canonical(field, pattern)
    address = parse_address(pattern)
    if address is None:
        raise _RuleError(f"exact: {pattern[:80]!r} is not an IP address", "For a network, write cidr.")
    return str(address)


def _cidr(field: Field, pattern: str) -> Network:
    if field is not Field.SRC_IP:
        raise _RuleError(f"cidr is for src.ip, not for {field}")
    try:
        return parse_network(pattern)
    except ValueError as error:
        # Of everything ipaddress may say, only `has host bits set` and the like: it quotes the pattern, no more.
        raise _RuleError(
            f"cidr: {str(error)[:200]}", "Write a network such as 198.18.0.0/15 or 2001:db8::/32."
        ) from None


def _regex(field: Field, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE if field is Field.ACTOR_EMAIL else 0)
    except (re.error, OverflowError, RecursionError) as error:
        raise _RuleError(f"regex: {pattern[:80]!r} does not compile: {error}") from None


_PARSERS = {Kind.EXACT: _exact, Kind.CIDR: _cidr, Kind.REGEX: _regex}


def _data(value: object) -> dict[str, str]:
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise _RuleError("data: expected keys and values")
    return {_scalar("a key", key): _scalar(str(key)[:80], item) for key, item in value.items()}


def _scalar(name: str, value: object) -> str:
    """NDJSON has numbers, true and null; they are kept in their JSON form, null as ''."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | int | float):
        return orjson.dumps(value).decode()
    raise _RuleError(f"data: {name}: expected one value, got a list or a map")


def _suggest(name: str, known: tuple[str, ...], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!s}?" if near else f"{otherwise} {', '.join(known)}."
