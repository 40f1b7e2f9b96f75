"""The words of an alert: a finding as plain data and as one line, cut to the limits of the receiver. Pure."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from shipper.detect.findings import Finding
from shipper.model import iso

# As many of a list, and as much of a text, as an alert holds at most; tried in turn until the whole is small enough.
_SIZES = ((1000, 4000), (300, 2000), (100, 1000), (30, 500), (10, 200), (3, 100), (0, 50))


def units(text: str) -> int:
    """The length in UTF-16 code units, never less than in characters: vendors do not say which they count."""
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


def one_line(text: str) -> str:
    """The text without line ends and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def fit(text: str, limit: int, cost: Callable[[str], int] = units) -> str:
    """The text, or as much of its beginning as costs at most `limit` with a `…` behind it.

    `cost` of a text is the sum of what its characters cost, at least 1 each.
    """
    if len(text) <= limit and cost(text) <= limit:
        return text
    room = limit - cost("…")
    ends = range(1, min(len(text), room) + 1)
    return text[: bisect_right(ends, room, key=lambda end: cost(text[:end]))] + "…"


def several(values: Sequence[str], limit: int, cost: Callable[[str], int] = units, *, between: str = ", ") -> str:
    """As many of the values as fit, each on one line, and how many more there are: `a, b and 9,998 more`."""
    gap = " " if between == ", " else between
    ending = cost(f"{gap}and {len(values):,} more") if len(values) > 1 else 0
    shown: list[str] = []
    spent = fitting = 0
    for value in values:
        line = one_line(value)
        spent += cost(line) + (cost(between) if shown else 0)
        if spent > limit:
            break
        shown.append(line)
        if spent <= limit - ending:
            fitting = len(shown)
    else:
        return between.join(shown)
    shown = shown[:fitting] or [fit(one_line(values[0]), limit - ending, cost)]
    rest = len(values) - len(shown)
    return between.join(shown) + (f"{gap}and {rest:,} more" if rest else "")


def summary(finding: Finding) -> str:
    """One line: `[HIGH] Brute force, then success: ada@example.com`."""
    return one_line(f"[{finding.severity.upper()}] {finding.title}: {finding.entity}")


def describe(finding: Finding, items: int = 1000, length: int = 4000) -> dict[str, Any]:
    """The finding as plain data: at most `items` of each list, `length` characters of each text.

    `left_out` says of which lists how many are missing. Its SQL is left out: `shipper findings show ID` has it.
    """
    lists: dict[str, Sequence[Any]] = {
        "tactics": finding.tactics,
        "techniques": finding.techniques,
        "event_types": finding.event_types,
        "actors": finding.actors,
        "src_ips": finding.src_ips,
        "resources": finding.resources,
        "details": finding.details,
        "events": [
            {"source_id": proof.source_id, "event_time": iso(proof.event_time), "id": proof.id}
            for proof in finding.events[:items]
        ],
    }
    sizes = {name: len(values) for name, values in lists.items()} | {"events": finding.count}
    return {
        "finding_id": finding.id,
        "workspace": fit(finding.workspace_id, length),
        "rule": fit(finding.rule, length),
        "title": fit(finding.title, length),
        "severity": str(finding.severity),
        "risk_score": finding.risk_score,
        "entity": fit(finding.entity, length),
        "count": finding.count,
        "bucket_start": iso(finding.bucket_start),
        "first_seen": iso(finding.first_seen),
        "last_seen": iso(finding.last_seen),
        "first_detected_at": _moment(finding.first_detected_at),
        "last_detected_at": _moment(finding.last_detected_at),
        "run_id": finding.run_id,
        **{
            name: [fit(value, length) if isinstance(value, str) else value for value in values[:items]]
            for name, values in lists.items()
        },
        "left_out": {name: size - items for name, size in sizes.items() if size > items},
    }


def described_within(finding: Finding, limit: int) -> dict[str, Any]:
    """As much of `describe` as its JSON has room for in `limit` bytes: at least 3,000 are needed."""
    for items, length in _SIZES:
        described = describe(finding, items, length)
        if len(encode(described)) <= limit:
            break
    return described


def encode(value: object) -> bytes:
    """JSON in UTF-8. A lone surrogate, which UTF-8 has no bytes for, becomes `?`."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
