"""PagerDuty: Events API v2.

Limits, from https://developer.pagerduty.com/docs/events-api-v2-overview and, of the fields, its page "Send an alert
event": an event has 512 KB at most, dedup_key 255 characters, payload.summary 1,024; severity is critical, error,
warning or info. 202 says that the event was accepted; 429 and 5xx are to be tried again, 400 is not.

The dedup_key is the id of the finding: an event that is sent twice is one alert. What is sent after the alert was
resolved makes a new one.
"""

from __future__ import annotations

from typing import Any

from shipper.detect.alerts.text import described_within, fit, one_line, summary
from shipper.detect.findings import Finding
from shipper.detection_settings import Severity
from shipper.model import iso

URL = "https://events.pagerduty.com/v2/enqueue"
EVENT_BYTES = 512_000
DEDUP_KEY = 255
SUMMARY = 1024

# No limit is published for the other texts.
_SHORT = 255
_ROOM_FOR_THE_REST = 12_000

SEVERITIES = {
    Severity.CRITICAL: "critical",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "info",
    Severity.INFO: "info",
}


def payload(finding: Finding, routing_key: str, *, resolve: bool = False) -> dict[str, Any]:
    """The event that opens an alert about a finding, or the one that closes it."""
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "resolve" if resolve else "trigger",
        "dedup_key": fit(finding.id, DEDUP_KEY),
    }
    if resolve:
        return event
    return event | {
        "client": "openai-audit-shipper",
        "payload": {
            "summary": fit(summary(finding), SUMMARY),
            "source": fit(f"openai/{one_line(finding.workspace_id)}", _SHORT),
            "severity": SEVERITIES[finding.severity],
            "timestamp": iso(finding.last_seen),
            "component": "audit log",
            "group": fit(one_line(finding.workspace_id), _SHORT),
            "class": fit(one_line(finding.rule), _SHORT),
            "custom_details": described_within(finding, EVENT_BYTES - _ROOM_FOR_THE_REST),
        },
    }
