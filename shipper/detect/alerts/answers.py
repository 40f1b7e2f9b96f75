"""What came back for an alert, and what it means: accepted, refused for good, or to be tried again. Pure.

Decided on the HTTP status and on the kind of exception. What is quoted from an answer is cleaned of the route's secrets
first; an exception is never quoted: it may hold the URL.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import NamedTuple

import aiohttp
from yarl import URL

from shipper.detect.alerts.text import fit, one_line
from shipper.fetch.faults import retry_after
from shipper.secret_text import SECRET
from shipper.tls import refusal

_LONGEST_QUOTE = 200
# A part of a URL's path that is shorter is a word.
_SHORTEST_SECRET = 8

LATER = "Nothing is lost: the alert stays pending, and the next `shipper detect` tries again."
_UNREACHABLE = f"Check the route's URL, the proxy and the network. {LATER}"
_HINTS = {
    400: "The receiver does not accept this alert. `shipper alerts test` shows whether it accepts any.",
    413: "The receiver takes only smaller bodies.",
}
# No alert is wrong then: the route is, and once it is mended they all go out.
_WRONG_ROUTE = {
    401: f"Check the route's url and key: the receiver does not know them. {LATER}",
    403: f"Check the route's url and key: the receiver does not allow them. {LATER}",
    404: f"Check the route's url: there is nothing, or nothing any more. {LATER}",
    405: f"Check the route's url: what is there takes no alerts. {LATER}",
    407: _UNREACHABLE,
    410: f"Check the route's url: what was there is gone. {LATER}",
}


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one request. Only a failed one is worth another try, and only with `retry` at once.

    `pause` is how long the receiver asked to be left alone, in seconds, None when it did not say.
    """

    verdict: Verdict
    message: str
    hint: str = ""
    retry: bool = False
    pause: float | None = None


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Promise:
    """How a receiver says that it has accepted: one of these statuses, and this body unless any will do."""

    statuses: tuple[int, ...] = (200,)
    body: bytes = b""
    name: str = "200"

    def kept(self, answer: Answer) -> bool:
        return answer.status in self.statuses and self.body in {b"", answer.body.strip()}


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must not be shown of a route: its key, and its URL with every longer part."""

    values: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, url: str, key: str) -> Secrets:
        parts = URL(url)
        pieces = [url, parts.raw_path_qs, parts.path_qs, parts.user or "", parts.password or "", *parts.parts, key]
        pieces += [*parts.query.values(), parts.raw_query_string]
        long_enough = {one for one in pieces if one and (one in {key, parts.password} or len(one) >= _SHORTEST_SECRET)}
        return cls(tuple(sorted(long_enough, key=len, reverse=True)))

    def clean(self, text: str) -> str:
        """Text of a stranger, fit for a message: no secret, one line, not long."""
        for value in self.values:
            text = text.replace(value, SECRET)
        return fit(one_line(text), _LONGEST_QUOTE)


def answered(answer: Answer, promise: Promise, secrets: Secrets, now: float) -> Reply:
    """The meaning of an answer to an alert. `now` is Unix time."""
    status, headers, body = answer
    message = f"{status} {_phrase(status)}"
    text = body.decode(errors="replace").strip()
    if text and not text.startswith("<"):
        message = f"{message}: {secrets.clean(text)}"
    if promise.kept(answer):
        return Reply(Verdict.ACCEPTED, message)
    if status == 429 or status >= 500:
        return Reply(Verdict.FAILED, message, LATER, retry=True, pause=retry_after(headers, now))
    if status in _WRONG_ROUTE:
        return Reply(Verdict.FAILED, message, _WRONG_ROUTE[status])
    if 400 <= status < 500:
        return Reply(Verdict.REFUSED, message, _HINTS.get(status, _HINTS[400]))
    if 300 <= status < 400:
        hint = f"Alerts are not sent on to another address: set the route's url to where the receiver is. {LATER}"
        return Reply(Verdict.FAILED, message, hint)
    hint = f"Check the route's url: another server answers. {LATER}"
    return Reply(Verdict.FAILED, f"{message}, expected {promise.name}", hint)


STOPPED = Reply(Verdict.FAILED, "stopped before an answer came", LATER)


def unanswered(error: Exception) -> Reply:
    """The meaning of a request that got no whole answer."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        message = f"the proxy answered {error.status} {_phrase(error.status)}"
        return Reply(Verdict.FAILED, message, _UNREACHABLE, retry=error.status == 429 or error.status >= 500)
    if refused := refusal(error):
        hint = f"Check the route's URL and ca_file, which is trusted besides the system's authorities. {LATER}"
        return Reply(Verdict.FAILED, refused.message, hint)
    if isinstance(error, aiohttp.InvalidURL):
        return Reply(Verdict.FAILED, "the route's url is not one", _UNREACHABLE)
    reason = type(error).__name__
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        reason = f"TLS failed: {reason}"
    elif isinstance(error, TimeoutError):
        reason = "no answer in time"
    elif isinstance(error, OSError) and error.strerror and not isinstance(error, aiohttp.ClientError):
        reason = f"{reason}: {error.strerror}"
    elif isinstance(error, aiohttp.ClientOSError) and isinstance(error.errno, int) and error.errno > 0:
        reason = f"{reason}: {os.strerror(error.errno)}"
    return Reply(Verdict.FAILED, reason, _UNREACHABLE, retry=True)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(no standard status)"
