"""Typed getters over untrusted JSON: the type a column needs, or its default and a note of where it was not that."""

from __future__ import annotations

import ipaddress
import math
from functools import lru_cache
from typing import Any

from shipper.model import MAX_TIME

# What a JSON object is once parsed. Its values are checked by the getters below and go no further.
Object = dict[str, Any]

_NOTHING: Object = {}
_DECIMAL = frozenset("0123456789.+-eE")
# The longest texts an address can be: RFC 5321 for mail, and an IPv6 address with room for a zone name.
_MAX_EMAIL = 254
_MAX_IP = 64


def text(holder: Object, key: str, path: str, wrong: list[str]) -> str:
    """The string under `key`. Null is as good as absent; anything else is `''` and adds `path` to `wrong`."""
    value = holder.get(key)
    if type(value) is str:
        return value
    if value is not None:
        wrong.append(path)
    return ""


def table(holder: Object, key: str, path: str, wrong: list[str]) -> Object:
    """The object under `key`, to read from only. Null is as good as absent; anything else is noted in `wrong`."""
    value = holder.get(key)
    if type(value) is dict:
        return value
    if value is not None:
        wrong.append(path)
    return _NOTHING


def timestamp(value: object) -> int:
    """Unix seconds from a whole number or a numeric string that means one; 0 when it is no time a row can have.

    0 itself (1970-01-01 00:00:00) is what unset times look like, so it is none.
    """
    if type(value) is str:
        value = _decimal(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 < value <= MAX_TIME else 0


def as_number(value: object) -> int | None:
    """An autonomous system number from `16509`, `AS16509` or 16509; 0 from an empty text; None when it is none."""
    if type(value) is str:
        digits = value.strip().upper().removeprefix("AS")
        if not digits:
            return None if value.strip() else 0
        value = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 10 else None
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < 2**32 else None


def degrees(value: object, limit: float) -> float | None:
    """A latitude or longitude from text or number, within ±limit; None when it is none."""
    if type(value) is str:
        value = _decimal(value.strip())
    if type(value) is int or type(value) is float:
        return float(value) if -limit <= value <= limit else None
    return None


def canonical_ip(address: str) -> str:
    """The address as ClickHouse and every database of addresses writes it; `''` when it is not one.

    An IPv4 address inside IPv6 (`::ffff:192.0.2.1`) is the IPv4 address. The zone of an IPv6 address (`%eth0`) means
    something on one host only, and is left out.
    """
    return _canonical_ip(address) if len(address) <= _MAX_IP else ""


@lru_cache(maxsize=8192)
def _canonical_ip(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed))
    return str(parsed)


def is_email(candidate: str) -> bool:
    """Whether this looks like an e-mail address: one `@`, something on both sides, nothing blank or unprintable.

    A display name (`Alice Smith`) and a mangled one (`Alice Smith@example.com`) are none. A domain without a dot is
    accepted: the question is whether it is an address, not whether it can be reached.
    """
    return len(candidate) <= _MAX_EMAIL and _looks_like_email(candidate)


@lru_cache(maxsize=8192)
def _looks_like_email(candidate: str) -> bool:
    local, _, domain = candidate.partition("@")
    return bool(local and domain) and "@" not in domain and " " not in candidate and candidate.isprintable()


def _decimal(digits: str) -> float | None:
    # float() also takes `nan`, `1_000`, blanks and the digits of other scripts.
    if not 0 < len(digits) <= 40 or not _DECIMAL.issuperset(digits):
        return None
    try:
        value = float(digits)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
