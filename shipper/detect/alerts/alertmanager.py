"""Prometheus Alertmanager: POST /api/v2/alerts, a list of alerts.

From https://prometheus.io/docs/alerting/latest/alerts_api and the OpenAPI file of Alertmanager: an alert has labels,
which identify it, annotations, startsAt and endsAt; names are `[a-zA-Z_][a-zA-Z0-9_]*`, and alertname is required. The
answer is 200, or 400 when one of the list is wrong. The same labels are the same alert, so that one that is sent twice
is one. No limit of length is published.

Alertmanager forgets an alert at its endsAt, or when it is restarted: it keeps none on disk.
"""

from __future__ import annotations

from typing import Any

from shipper.detect.alerts.text import fit, one_line, several, summary, units
from shipper.detect.findings import Finding
from shipper.model import iso

PATH = "api/v2/alerts"
BATCH = 50

# How long a finding fires when nobody acknowledges it, in seconds.
FIRES_FOR = 24 * 3600

# An end that is not past by Alertmanager's clock ends nothing.
_CLOCKS_DIFFER = 60

_LABEL = 512
_ANNOTATION = 2000


def payload(finding: Finding, now: float, *, resolve: bool = False, acknowledged_at: int = 0) -> dict[str, Any]:
    """The alert about a finding, from its first event on; or the same, ended.

    The one after an acknowledgement, at that time in milliseconds, is another alert, with a label `reopened` of that
    time: Alertmanager notifies nobody of one that ends and fires again between two of its looks at a group.
    """
    end = int(now) - _CLOCKS_DIFFER if resolve else int(now) + FIRES_FOR
    return {
        "labels": {
            "alertname": _label(finding.rule),
            "severity": str(finding.severity),
            "rule": _label(finding.rule),
            "finding_id": finding.id,
            "workspace": _label(finding.workspace_id),
            **({"reopened": iso(acknowledged_at // 1000)} if acknowledged_at else {}),
        },
        "annotations": {
            name: value
            for name, value in (
                ("summary", fit(summary(finding), _ANNOTATION)),
                ("title", fit(one_line(finding.title), _ANNOTATION)),
                ("entity", fit(one_line(finding.entity), _ANNOTATION)),
                ("description", several(finding.details, _ANNOTATION, between="\n")),
                ("actors", several(finding.actors, _ANNOTATION)),
                ("src_ips", several(finding.src_ips, _ANNOTATION)),
                ("resources", several(finding.resources, _ANNOTATION)),
                ("event_types", several(finding.event_types, _ANNOTATION)),
                ("mitre", several((*finding.tactics, *finding.techniques), _ANNOTATION)),
                ("events", f"{finding.count}"),
                ("risk_score", f"{finding.risk_score}"),
                ("first_seen", iso(finding.first_seen)),
                ("last_seen", iso(finding.last_seen)),
            )
            if value
        },
        # An alert must begin before it ends, whatever the events' clock says.
        "startsAt": iso(min(finding.first_seen, end - 1)),
        "endsAt": iso(end),
    }


def _label(text: str) -> str:
    return fit(one_line(text), _LABEL, units)
