"""Lists: rules over src.ip, actor.email and actor.id that fill the column `enrichments`.

src.ip is the canonical `srcIP`. actor.email is the address as the API told it, compared without case. actor.id is the
user's id, else the service account's, else the API key's. A regex matches anywhere in the value; anchor it with ^ and $
to match all of it.

Python's regexes cannot be given a time limit, so a value longer than MAX_REGEX_INPUT is not shown to them: no address,
e-mail address (254 by RFC 5321) or id is that long. Such a look-up counts as failed. Short inputs are still enough for
a pattern with nested repeats such as `(a+)+$` to take for ever: the patterns are the operator's own, and have to be
written with that in mind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from shipper.config import Settings
from shipper.enrich.addresses import NetworkTable, parse_address
from shipper.enrich.contract import DatabaseInfo
from shipper.enrich.files import WatchedFile, look
from shipper.enrich.rules import Field, Rule, canonical, read_rules
from shipper.errors import ConfigError
from shipper.model import Row
from shipper.telemetry import Lookups, logger

CACHE_SIZE = 65_536
MAX_REGEX_INPUT = 256

FAILED_TAG = "listsFailed"

# data, name, provider, type, value: one tuple of the column `enrichments`.
Hit = tuple[dict[str, str], str, str, str, str]


def _actor_email(row: Row) -> str:
    return row.actor.user_email or row.actor.identity.get("email", "")


def _actor_id(row: Row) -> str:
    return row.actor.user_id or row.actor.service_account_id or row.actor.api_key_id


def _src_ip(row: Row) -> str:
    return row.place.ip


_VALUES: dict[Field, Callable[[Row], str]] = {
    Field.SRC_IP: _src_ip,
    Field.ACTOR_EMAIL: _actor_email,
    Field.ACTOR_ID: _actor_id,
}


class FieldRules:
    """All rules over one field, of all lists, with one cached match per distinct value."""

    def __init__(self, field: Field, rules: Iterable[tuple[str, Rule]], *, cache_size: int = CACHE_SIZE) -> None:
        self.field = field
        self.value_of = _VALUES[field]
        self._made = 0
        self._found = 0
        self._failed = 0
        self.find = lru_cache(cache_size)(self._match)
        self._hits: list[Hit] = []
        self._exact: dict[str, list[int]] = {}
        self._networks: NetworkTable[int] = NetworkTable()
        self._regexes: list[tuple[re.Pattern[str], int]] = []
        for provider, rule in rules:
            self._add(provider, rule)

    @property
    def lookups(self) -> Lookups:
        return Lookups(self._made, self._found, self._failed)

    def _add(self, provider: str, rule: Rule) -> None:
        rank = len(self._hits)
        self._hits.append((rule.data, rule.field.value, provider, rule.kind.value, rule.pattern))
        match = rule.match
        if isinstance(match, str):
            self._exact.setdefault(match, []).append(rank)
        elif isinstance(match, IPv4Network | IPv6Network):
            self._networks.add(match, rank)
        else:
            self._regexes.append((match, rank))

    def _match(self, value: str) -> tuple[tuple[Hit, ...], bool]:
        """The hits in the order of the lists and their rules, and whether a regex could not be tried."""
        self._made += 1
        address = parse_address(value) if self.field is Field.SRC_IP else None
        ranks: list[int] = []
        if address is not None:
            value = str(address)
            ranks = self._networks.find(address)
        ranks += self._exact.get(canonical(self.field, value), ())
        too_long = len(value) > MAX_REGEX_INPUT and bool(self._regexes)
        if too_long:
            self._failed += 1
        else:
            ranks += [rank for regex, rank in self._regexes if regex.search(value)]
            self._found += bool(ranks)
        return tuple(self._hits[rank] for rank in sorted(ranks)), too_long


class WatchedList:
    """One list file and the rules that it held when it was last readable."""

    def __init__(self, name: str, path: Path) -> None:
        """Raises ConfigError for a file with a mistake."""
        self.name = name
        self.refused = 0
        self._file = WatchedFile(path, look(path))
        self.rules = read_rules(path)

    def refresh(self) -> bool:
        """Read the file again if it has changed; True when there are other rules now."""
        if not self._file.changed():
            return False
        refusal: ConfigError | None = None
        rules = self.rules
        try:
            rules = read_rules(self._file.path)
        except ConfigError as error:
            refusal = error
        if not self._file.still():
            return False  # it is being written; the next look tells
        self._file.take()
        if refusal is not None:
            self.refused += 1
            logger().warning(
                "a changed list is not usable; the rules before it stay in use", reason=str(refusal), hint=refusal.hint
            )
            return False
        self.rules = rules
        logger().info("list replaced", list=self.name, path=str(self._file.path), rules=len(rules))
        return True


class Lists:
    """The enrichment. Rows share the data maps of the rules: they are to be read, not changed."""

    databases: tuple[DatabaseInfo, ...] = ()

    def __init__(
        self,
        rules: Sequence[tuple[str, Rule]],
        *,
        cache_size: int = CACHE_SIZE,
        watched: Sequence[WatchedList] = (),
    ) -> None:
        """`rules` are pairs of the list's name and a rule, in the order in which hits are to be told.

        When one of the `watched` changes, their rules take the place of all these.
        """
        self._cache_size = cache_size
        self._watched = tuple(watched)
        self._fields = _index(rules, cache_size)
        self._lookups = Lookups()

    @property
    def lookups(self) -> Lookups:
        return sum((rules.lookups for rules in self._fields), self._lookups)

    @property
    def refused(self) -> int:
        return sum(watched.refused for watched in self._watched)

    def enrich(self, rows: Sequence[Row]) -> None:
        """Set `enrichments`: hits by field in the order of Field, then by list, then by rule."""
        fields = self._fields
        for row in rows:
            found: list[Hit] = []
            failed: list[str] = []
            for rules in fields:
                if value := rules.value_of(row):
                    hits, too_long = rules.find(value)
                    found += hits
                    if too_long:
                        failed.append(rules.field)
            row.enrichments = found
            if failed:
                row.tags = {**row.tags, FAILED_TAG: ",".join(failed)}

    def refresh(self) -> None:
        replaced = [watched.refresh() for watched in self._watched]
        if any(replaced):
            old = self._fields
            self._fields = _index(_rules(self._watched), self._cache_size)
            self._lookups = sum((rules.lookups for rules in old), self._lookups)

    def close(self) -> None:
        """Nothing to release."""


def open_lists(settings: Settings) -> Lists | None:
    """The enrichment with the configured lists, None without any. Raises ConfigError for a file with a mistake."""
    if not settings.lists:
        return None
    watched = [WatchedList(entry.name, entry.path) for entry in settings.lists]
    return Lists(_rules(watched), watched=watched)


def _rules(watched: Iterable[WatchedList]) -> list[tuple[str, Rule]]:
    return [(one.name, rule) for one in watched for rule in one.rules]


def _index(rules: Sequence[tuple[str, Rule]], cache_size: int) -> tuple[FieldRules, ...]:
    named = {rule.field for _, rule in rules}
    return tuple(
        FieldRules(field, (pair for pair in rules if pair[1].field is field), cache_size=cache_size)
        for field in Field
        if field in named
    )
