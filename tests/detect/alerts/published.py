"""What the vendors publish about what they take, written down a second time: nothing here is imported from the product.

Each check returns what is wrong with a body, one sentence each.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

_ENTITY = re.compile(r"&(?!amp;|lt;|gt;)")


def _length(text: str) -> int:
    """The longest of what "characters" may mean."""
    return max(len(text), len(text.encode("utf-16-le")) // 2)


def slack(body: bytes) -> Iterator[str]:
    """https://docs.slack.dev/reference/block-kit/blocks."""
    message = json.loads(body)
    if not message.get("text") or _length(message["text"]) > 4000:
        yield "text: expected a fallback of 1 to 4,000 characters"
    if unknown := set(message) - {"text", "blocks", "unfurl_links", "unfurl_media"}:
        yield f"unknown: {unknown}"
    if not 1 <= len(message["blocks"]) <= 50:
        yield "blocks: 1 to 50"
    yield from _markup(message["text"])
    for block in message["blocks"]:
        yield from _block(block)


def _block(block: dict[str, Any]) -> Iterator[str]:
    match block["type"]:
        case "header":
            yield from _text(block["text"], "plain_text", 150)
        case "section":
            if "text" not in block and "fields" not in block:
                yield "section: text or fields"
            if "text" in block:
                yield from _text(block["text"], "mrkdwn", 3000)
            if "fields" in block:
                if not 1 <= len(block["fields"]) <= 10:
                    yield "section: 1 to 10 fields"
                for field in block["fields"]:
                    yield from _text(field, "mrkdwn", 2000)
        case "context":
            if not 1 <= len(block["elements"]) <= 10:
                yield "context: 1 to 10 elements"
            for element in block["elements"]:
                yield from _text(element, "mrkdwn", 3000)
        case other:
            yield f"block of type {other}"


def _text(value: dict[str, Any], kind: str, limit: int) -> Iterator[str]:
    if value["type"] != kind:
        yield f"expected {kind}, got {value['type']}"
    if not 1 <= _length(value["text"]) <= limit:
        yield f"{kind}: {_length(value['text'])} characters, expected 1 to {limit}"
    if kind == "mrkdwn":
        yield from _markup(value["text"])
    elif "emoji" not in value:
        yield "plain_text: emoji is on by default"


def _markup(text: str) -> Iterator[str]:
    if "<" in text or ">" in text or _ENTITY.search(text):
        yield f"a control character is not escaped: {text[:80]!r}"


def pagerduty(body: bytes, routing_key: str) -> Iterator[str]:
    """https://developer.pagerduty.com/docs/send-alert-event."""
    if len(body) > 512_000:
        yield f"{len(body)} bytes, expected at most 512 KB"
    event = json.loads(body)
    if event["routing_key"] != routing_key:
        yield "routing_key"
    if not 1 <= _length(event["dedup_key"]) <= 255:
        yield "dedup_key: 1 to 255 characters"
    if event["event_action"] == "resolve":
        return
    if event["event_action"] != "trigger":
        yield "event_action"
    payload = event["payload"]
    if not 1 <= _length(payload["summary"]) <= 1024:
        yield "summary: 1 to 1,024 characters"
    if payload["severity"] not in {"critical", "error", "warning", "info"}:
        yield "severity"
    if not payload["source"]:
        yield "source"
    if datetime.fromisoformat(payload["timestamp"]).tzinfo is None:
        yield "timestamp without a zone"
    if not isinstance(payload["custom_details"], dict):
        yield "custom_details: an object"
    if unknown := set(payload) - {
        *("summary", "severity", "source", "timestamp", "component", "group", "class", "custom_details"),
    }:
        yield f"unknown: {unknown}"


def alertmanager(body: bytes) -> Iterator[str]:
    """https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml and Prometheus's names of labels."""
    for alert in json.loads(body):
        if set(alert) != {"labels", "annotations", "startsAt", "endsAt"}:
            yield f"names: {set(alert)}"
        for name, value in [*alert["labels"].items(), *alert["annotations"].items()]:
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
                yield f"name {name}"
            if not isinstance(value, str):
                yield f"{name}: not text"
        if not alert["labels"]["alertname"]:
            yield "alertname"
        if datetime.fromisoformat(alert["startsAt"]) >= datetime.fromisoformat(alert["endsAt"]):
            yield "startsAt: not before endsAt"


def webhook(headers: Mapping[str, str], body: bytes, key: str, now: float) -> Iterator[str]:
    """What the product's documentation promises to receivers."""
    timestamp = headers["X-Shipper-Timestamp"]
    wanted = hmac.new(key.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    if headers["X-Shipper-Signature"] != f"v1={wanted}":
        yield "signature"
    if abs(int(timestamp) - now) > 300:
        yield "timestamp"
    if not re.fullmatch(r"[0-9a-f]{32}-trigger(/\d+)?", headers["Idempotency-Key"]):
        yield "idempotency key"
    if len(body) > 1_000_000:
        yield f"{len(body)} bytes"
    if set(json.loads(body)) != {"version", "action", "finding"}:
        yield "names"
