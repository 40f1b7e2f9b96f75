"""A webhook of one's own: JSON over POST, signed.

Headers of each request:

    Idempotency-Key      the id of the finding and the action; the same when a request is sent again, another one
                         when the finding is told anew because it grew after an acknowledgement
    X-Shipper-Timestamp  Unix seconds at which this request was signed, in decimal digits
    X-Shipper-Signature  v1= and the HMAC-SHA256 of timestamp, a full stop and the body, in hexadecimal

The key of the HMAC is the route's key as UTF-8. Any 2xx accepts. The receiver checks the bytes as they came, before it
parses them, compares in constant time, refuses what was signed more than five minutes ago, and takes an
Idempotency-Key that it has seen as done:

    import hashlib, hmac, time

    def verify(key: bytes, headers: dict[str, str], body: bytes) -> bool:
        timestamp = headers["X-Shipper-Timestamp"]
        signed = hmac.new(key, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(f"v1={signed}".encode(), headers["X-Shipper-Signature"].encode()):
            return False
        return abs(time.time() - int(timestamp)) <= 300
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from shipper.detect.alerts.actions import TRIGGER
from shipper.detect.alerts.text import described_within
from shipper.detect.findings import Finding

# A limit of ours: receivers take at least this much by default (nginx 1 MiB).
BODY_BYTES = 1_000_000
_ROOM_FOR_THE_REST = 1_000

IDEMPOTENCY = "Idempotency-Key"
TIMESTAMP = "X-Shipper-Timestamp"
SIGNATURE = "X-Shipper-Signature"


def payload(finding: Finding) -> dict[str, Any]:
    """The body. `version` grows when a name changes its meaning or goes; new names may come without."""
    return {
        "version": 1,
        "action": "trigger",
        "finding": described_within(finding, BODY_BYTES - _ROOM_FOR_THE_REST),
    }


def headers(finding: Finding, body: bytes, key: str, now: float, *, action: str = TRIGGER) -> dict[str, str]:
    """The headers with which exactly these bytes are sent at `now`."""
    timestamp = f"{int(now)}"
    return {
        IDEMPOTENCY: f"{finding.id}-{action}",
        TIMESTAMP: timestamp,
        SIGNATURE: f"v1={signature(key, timestamp, body)}",
    }


def signature(key: str, timestamp: str, body: bytes) -> str:
    """The HMAC-SHA256 of `timestamp.body`, 64 hexadecimal digits."""
    return hmac.new(key.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
