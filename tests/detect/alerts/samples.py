"""Findings for the tests: an ordinary one, and those that somebody made to break what shows them."""

from __future__ import annotations

from typing import Any

from shipper.detect.findings import Finding, Proof, finding_id
from shipper.detection_settings import Severity

NOW = 1_795_000_000


def finding(**values: Any) -> Finding:
    """An ordinary finding, but for `values`."""
    given: dict[str, Any] = {
        "workspace_id": "default",
        "rule": "brute-force-then-success",
        "entity": "ada@example.com",
        "bucket_start": NOW - 7200,
        "title": "Brute force, then a sign-in",
        "severity": Severity.HIGH,
        "risk_score": 80,
        "tactics": ("TA0006",),
        "techniques": ("T1110",),
        "first_seen": NOW - 3600,
        "last_seen": NOW - 60,
        "events": (Proof("openai", NOW - 3600, "a1"), Proof("openai", NOW - 60, "a2")),
        "event_types": ("login.failed", "login.succeeded"),
        "actors": ("ada@example.com",),
        "src_ips": ("203.0.113.7",),
        "resources": ('{"type":"user","id":"user-1"}',),
        "details": ("20 failures, then success",),
        "first_detected_at": NOW * 1000 - 30_000,
        "last_detected_at": NOW * 1000 - 30_000,
        "query": "SELECT 1",
        "parameters": "{}",
        "run_id": "run-1",
        **values,
    }
    key = (given["workspace_id"], given["rule"], given["entity"], given["bucket_start"])
    return Finding(**{"id": finding_id(*key), **given})


_NASTY = (
    "<script>alert(1)</script> <!channel> <@U1> *bold* _it_ ~no~ `code` ```block``` & &amp; :tada: 🙈\n\r\t\x00\x1b[31m"
)

HOSTILE = {
    "ordinary": finding(),
    "markup": finding(
        entity=_NASTY,
        title=_NASTY,
        workspace_id=_NASTY,
        rule="own-rule",
        actors=(_NASTY, "b"),
        src_ips=(_NASTY,),
        resources=(_NASTY,),
        details=(_NASTY, "```", "`"),
        event_types=(_NASTY,),
        tactics=(_NASTY,),
    ),
    "crowd": finding(
        entity="everybody",
        actors=tuple(f"user{number:05}@example.com" for number in range(10_000)),
        src_ips=tuple(f"10.0.{number // 250}.{number % 250}" for number in range(10_000)),
        resources=tuple(f'{{"type":"user","id":"user-{number}"}}' for number in range(10_000)),
        details=tuple(f"detail {number}" for number in range(10_000)),
        events=tuple(Proof("openai", NOW - number, f"row-{number:040}") for number in range(10_000)),
    ),
    "long": finding(
        entity="e" * 100_000,
        title="t" * 100_000,
        workspace_id="w" * 100_000,
        rule="r" * 100_000,
        details=("d" * 100_000, "second"),
        actors=("a" * 100_000,) * 50,
    ),
    "emoji": finding(
        entity="🙈" * 5_000, title="🙈" * 5_000, actors=("🙈" * 5_000,), details=tuple("🙈" * 2_000 for _ in range(500))
    ),
    "ampersands": finding(entity="&" * 5_000, title="&" * 5_000, details=("&" * 100_000,), actors=("<" * 5_000,) * 9),
    "quotes": finding(entity='"\\' * 5_000, details=('"\\\x01' * 100_000,) * 20, actors=('"\\' * 9_000,) * 200),
    "surrogates": finding(entity="\ud800 lone", details=("\udfff" * 50,)),
    "bare": finding(
        entity="nobody",
        **dict.fromkeys(
            ("tactics", "techniques", "event_types", "actors", "src_ips", "resources", "details", "events"), ()
        ),
    ),
    "blank": finding(entity="", actors=("", "  "), details=("",), title=" "),
    "future": finding(entity="tomorrow", first_seen=NOW + 86_400, last_seen=NOW + 86_400),
}
