"""Standard output: one line of JSON per alert, for whatever reads the process's output."""

from __future__ import annotations

import json
from typing import Any

from shipper.detect.alerts.text import describe
from shipper.detect.findings import Finding


def payload(finding: Finding) -> dict[str, Any]:
    """The object of the line."""
    return {"alert": "trigger", "finding": describe(finding)}


def line(finding: Finding) -> str:
    """The line, in ASCII: any output can take it, and no terminal finds a command in it."""
    return json.dumps(payload(finding), separators=(",", ":")) + "\n"
