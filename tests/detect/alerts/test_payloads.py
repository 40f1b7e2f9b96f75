"""What each destination is sent: exact for an ordinary finding, within the published limits for every other."""

from __future__ import annotations

import json
import re
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipper.detect.alerts import alertmanager, pagerduty, slack, stdout, webhook
from shipper.detect.alerts.text import describe, described_within, encode, fit, one_line, several, units
from shipper.detect.findings import Finding
from shipper.detection_settings import Severity
from tests.detect.alerts import published
from tests.detect.alerts.samples import HOSTILE, NOW, finding
from tests.secrets_scan import canary

KEY = canary("payload")

DESCRIBED = {
    "finding_id": finding().id,
    "workspace": "default",
    "rule": "brute-force-then-success",
    "title": "Brute force, then a sign-in",
    "severity": "high",
    "risk_score": 80,
    "entity": "ada@example.com",
    "count": 2,
    "bucket_start": "2026-11-18T09:06:40Z",
    "first_seen": "2026-11-18T10:06:40Z",
    "last_seen": "2026-11-18T11:05:40Z",
    "first_detected_at": "2026-11-18T11:06:10.000+00:00",
    "last_detected_at": "2026-11-18T11:06:10.000+00:00",
    "run_id": "run-1",
    "tactics": ["TA0006"],
    "techniques": ["T1110"],
    "event_types": ["login.failed", "login.succeeded"],
    "actors": ["ada@example.com"],
    "src_ips": ["203.0.113.7"],
    "resources": ['{"type":"user","id":"user-1"}'],
    "details": ["20 failures, then success"],
    "events": [
        {"source_id": "openai", "event_time": "2026-11-18T10:06:40Z", "id": "a1"},
        {"source_id": "openai", "event_time": "2026-11-18T11:05:40Z", "id": "a2"},
    ],
    "left_out": {},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_every_body_keeps_to_what_the_vendor_publishes(name: str) -> None:
    """Checked by code that knows the vendors' pages and nothing of ours."""
    one = HOSTILE[name]
    assert list(published.slack(encode(slack.payload(one)))) == []
    assert list(published.alertmanager(encode([alertmanager.payload(one, NOW)]))) == []
    assert list(published.alertmanager(encode([alertmanager.payload(one, NOW, resolve=True)]))) == []
    # PagerDuty's key is where the vendor wants it, in the body.
    assert list(published.pagerduty(encode(pagerduty.payload(one, "k" * 32)), "k" * 32)) == []
    assert list(published.pagerduty(encode(pagerduty.payload(one, "k" * 32, resolve=True)), "k" * 32)) == []
    body = encode(webhook.payload(one))
    assert list(published.webhook(webhook.headers(one, body, KEY, NOW), body, KEY, NOW)) == []
    line = stdout.line(one)
    assert (line.count("\n"), line.isascii(), line.endswith("\n")) == (1, True, True)
    assert json.loads(line)["finding"]["finding_id"] == one.id


_text = st.text(max_size=3000)
_texts = st.lists(_text, max_size=30).map(tuple)


@given(st.builds(finding, entity=_text, title=_text, details=_texts, actors=_texts))
@settings(max_examples=60, deadline=None)
def test_no_text_gets_a_body_over_a_limit(one: Finding) -> None:
    assert list(published.slack(encode(slack.payload(one)))) == []
    assert list(published.alertmanager(encode([alertmanager.payload(one, NOW)]))) == []
    assert list(published.pagerduty(encode(pagerduty.payload(one, "k")), "k")) == []


def test_slack_shows_an_ordinary_finding_whole() -> None:
    one = finding()

    def shown(name: str, value: str) -> dict[str, object]:
        return {"type": "mrkdwn", "text": f"*{name}*\n{value}", "verbatim": True}

    assert slack.payload(one) == {
        "text": "[HIGH] Brute force, then a sign-in: ada@example.com",
        "blocks": [
            {
                "type": "header",
                "text": {"type": "plain_text", "text": "[HIGH] Brute force, then a sign-in", "emoji": False},
            },
            {
                "type": "section",
                "fields": [
                    shown("Severity", "`high, risk 80`"),
                    shown("Rule", "`brute-force-then-success`"),
                    shown("About", "`ada@example.com`"),
                    shown("Events", "`2`"),
                    shown("First seen", "`2026-11-18T10:06:40Z`"),
                    shown("Last seen", "`2026-11-18T11:05:40Z`"),
                    shown("Actors", "`ada@example.com`"),
                    shown("Addresses", "`203.0.113.7`"),
                    shown("Event types", "`login.failed, login.succeeded`"),
                    shown("MITRE ATT&amp;CK", "`TA0006, T1110`"),
                ],
            },
            {"type": "section", "text": shown("What happened", "```\n20 failures, then success\n```")},
            {"type": "section", "text": shown("Acted on", '```\n{"type":"user","id":"user-1"}\n```')},
            {
                "type": "context",
                "elements": [{"type": "mrkdwn", "text": f"`shipper findings show {one.id}`", "verbatim": True}],
            },
        ],
        "unfurl_links": False,
        "unfurl_media": False,
    }


def test_slack_formats_nothing_that_somebody_wrote() -> None:
    """Each value stands in code of its own: no backtick ends it early, no line end, nobody is mentioned."""
    message = slack.payload(HOSTILE["markup"])
    for block in message["blocks"][1:]:
        for text in [
            *block.get("fields", []),
            *block.get("elements", []),
            *([block["text"]] if "text" in block else []),
        ]:
            value = text["text"].partition("*\n")[2] or text["text"]
            assert re.fullmatch(r"`[^`\n]*`|-|```\n[^`]*\n```", value), value
    assert "&lt;!channel&gt;" in message["text"]


def test_slack_says_how_many_are_not_shown() -> None:
    fields = slack.payload(HOSTILE["crowd"])["blocks"][1]["fields"]
    [actors] = [field["text"] for field in fields if "Actors" in field["text"]]
    assert re.fullmatch(r"\*Actors\*\n`user00000@example\.com, .* and 9,9\d\d more`", actors)


def test_pagerduty_gets_the_finding_under_its_id() -> None:
    one = finding()
    assert pagerduty.payload(one, "routing-key") == {
        "routing_key": "routing-key",
        "event_action": "trigger",
        "dedup_key": one.id,
        "client": "openai-audit-shipper",
        "payload": {
            "summary": "[HIGH] Brute force, then a sign-in: ada@example.com",
            "source": "openai/default",
            "severity": "error",
            "timestamp": "2026-11-18T11:05:40Z",
            "component": "audit log",
            "group": "default",
            "class": "brute-force-then-success",
            "custom_details": DESCRIBED,
        },
    }
    assert pagerduty.payload(one, "routing-key", resolve=True) == {
        "routing_key": "routing-key",
        "event_action": "resolve",
        "dedup_key": one.id,
    }


def test_pagerduty_gets_as_much_as_an_event_holds() -> None:
    """Of findings that are a little smaller or larger than an event may be."""
    sizes = []
    for number in range(0, 24_000, 300):
        details = (*(f"{one:04000}" for one in range(122)), *("x" * (number // 8) + f"{one}" for one in range(8)))
        body = encode(pagerduty.payload(finding(details=details), "k" * 32))
        assert list(published.pagerduty(body, "k" * 32)) == []
        sizes.append(len(body))
    assert (min(sizes) < 480_000, max(sizes) > 499_000) == (True, True)


def test_each_severity_is_one_of_pagerdutys() -> None:
    found = {one: pagerduty.payload(finding(severity=one), "k")["payload"]["severity"] for one in Severity}
    assert {str(one): told for one, told in found.items()} == {
        "critical": "critical",
        "high": "error",
        "medium": "warning",
        "low": "info",
        "info": "info",
    }


def test_alertmanager_knows_a_finding_by_its_labels() -> None:
    """They are the same when it has grown, and when it ends; only then its end is past."""
    one = finding()
    alert = alertmanager.payload(one, NOW)
    assert alert == {
        "labels": {
            "alertname": "brute-force-then-success",
            "severity": "high",
            "rule": "brute-force-then-success",
            "finding_id": one.id,
            "workspace": "default",
        },
        "annotations": {
            "summary": "[HIGH] Brute force, then a sign-in: ada@example.com",
            "title": "Brute force, then a sign-in",
            "entity": "ada@example.com",
            "description": "20 failures, then success",
            "actors": "ada@example.com",
            "src_ips": "203.0.113.7",
            "resources": '{"type":"user","id":"user-1"}',
            "event_types": "login.failed, login.succeeded",
            "mitre": "TA0006, T1110",
            "events": "2",
            "risk_score": "80",
            "first_seen": "2026-11-18T10:06:40Z",
            "last_seen": "2026-11-18T11:05:40Z",
        },
        "startsAt": "2026-11-18T10:06:40Z",
        "endsAt": "2026-11-19T11:06:40Z",
    }
    grown = finding(actors=("ada@example.com", "eve@example.com"), last_seen=NOW)
    ended = alertmanager.payload(grown, NOW, resolve=True)
    assert (ended["labels"], ended["endsAt"]) == (alert["labels"], "2026-11-18T11:05:40Z")


def test_the_webhook_gets_the_finding_as_data() -> None:
    assert webhook.payload(finding()) == {"version": 1, "action": "trigger", "finding": DESCRIBED}
    assert stdout.payload(finding()) == {"alert": "trigger", "finding": DESCRIBED}
    assert "SELECT" not in json.dumps(DESCRIBED)


def test_a_receiver_verifies_as_the_documentation_says() -> None:
    """The code in the documentation takes what is signed, and nothing that was changed, is old, or has another key."""
    code = textwrap.dedent((webhook.__doc__ or "").partition("done:\n")[2])
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - the documentation's own code
    verify = names["verify"]
    assert callable(verify)
    body = encode(webhook.payload(finding()))
    now = time.time()
    headers = webhook.headers(finding(), body, KEY, now)
    assert verify(KEY.encode(), headers, body) is True
    assert verify(b"another", headers, body) is False
    assert verify(KEY.encode(), headers, body + b" ") is False
    assert verify(KEY.encode(), headers | {"X-Shipper-Timestamp": f"{int(now) + 1}"}, body) is False
    assert verify(KEY.encode(), headers | {"X-Shipper-Signature": "v1=ü"}, body) is False
    old = webhook.headers(finding(), body, KEY, now - 600)
    assert verify(KEY.encode(), old, body) is False
    assert old["Idempotency-Key"] == headers["Idempotency-Key"]


def test_the_signature_is_what_openssl_says() -> None:
    """printf '1795000000.{"a":1}' | openssl dgst -sha256 -hmac key."""
    wanted = "1bd16f4bb96630234f5d9db1391a58d04079ea2aaf515271f43b4b91dcdfe987"
    assert webhook.signature("key", "1795000000", b'{"a":1}') == wanted


def test_what_has_no_room_is_counted() -> None:
    """The first of each list are there, and how many more there are."""
    crowd = HOSTILE["crowd"]
    described = described_within(crowd, 500_000)
    assert len(encode(described)) <= 500_000
    assert described["actors"] == list(crowd.actors[:1000])
    assert described["count"] == 10_000
    assert described["left_out"] == dict.fromkeys(("actors", "src_ips", "resources", "details", "events"), 9_000)
    small = described_within(crowd, 3_000)
    assert (small["actors"], small["left_out"]["actors"]) == (list(crowd.actors[:10]), 9_990)
    assert len(encode(described_within(HOSTILE["quotes"], 3_000))) <= 3_000
    assert describe(finding())["left_out"] == {}


@given(st.text(max_size=60), st.integers(min_value=1, max_value=40))
def test_a_text_is_cut_only_when_it_must_be(text: str, limit: int) -> None:
    cut = fit(text, limit)
    assert units(cut) <= limit
    assert cut == text if units(text) <= limit else cut.endswith("…") and text.startswith(cut[:-1])


@given(st.lists(st.text(max_size=30), max_size=30), st.integers(min_value=40, max_value=200))
def test_a_list_is_within_its_limit_and_counts_the_rest(values: list[str], limit: int) -> None:
    told = several(values, limit)
    assert units(told) <= limit
    whole = ", ".join(one_line(value) for value in values)
    if told != whole:
        assert re.search(r" and [\d,]+ more$|…$", told)


def test_a_list_of_a_long_value_shows_its_beginning() -> None:
    assert several(["a" * 100], 40) == "a" * 39 + "…"
    assert several(["a" * 100, "b"], 40) == "a" * 28 + "… and 1 more"
    assert several(["a", "b", "c" * 100], 20) == "a, b and 1 more"
    assert several(["a", "b", "c"], 7) == "a, b, c"
    assert several(["a", "b\nb", "c" * 100], 30, between="\n") == "a\nb b\nand 1 more"
    assert several([], 40) == ""
