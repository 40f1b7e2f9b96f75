"""Standard output: one line of JSON per alert, for whatever reads the process's output."""

from __future__ import annotations

from typing import Any

from shipper.detect.alerts.text import describe
from shipper.detect.findings import Finding


def payload(finding: Finding) -> dict[str, Any]:
    """The object of the line."""
    return {"alert": "trigger", "finding": describe(finding)}
