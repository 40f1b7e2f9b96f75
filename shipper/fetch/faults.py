"""What an answer that is not a page means: whether to ask again, when, and which error it is in the end. Pure.

Decided on the HTTP status and on the kind of exception, never on a message. What is quoted from an answer is cleaned of
keys first; exceptions of aiohttp that hold the request's headers or the proxy's password are not chained.
"""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple

import aiohttp
import msgspec
from yarl import URL

from shipper.errors import ApiError, ApiProtocolError, ApiRefused, ApiRejected, ApiUnavailable
from shipper.fetch.scan import IncompleteJSONError
from shipper.tls import refusal

_RETRIED = frozenset({408, 409, 429})
_REFUSED = frozenset({401, 403})
_FIRST_BACKOFF = 1.0
_LONGEST_QUOTE = 300
_KEY_LIKE = re.compile(r"\bsk-[^\s\"'<>,;(){}\[\]]*")

_OVERLOADED = "Nothing is lost: the next run reads what is missing. Lower requests_per_second if this goes on."
_UNREACHABLE = "Check base_url, the proxy and the network. Nothing is lost: the next run reads what is missing."
_KEY_NEEDED = (
    "An organization's admin key (sk-admin-…) is needed, not a project key, with the read scope of this endpoint: "
    "api.audit_logs.read for the audit log."
)
_ALSO_403 = " A 403 may also come from the organization's IP allowlist or mutual-TLS policy."


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed try. `pause` is how long the server asked to be left alone, in seconds, None when it did not say."""

    kind: type[ApiError]
    message: str
    hint: str = ""
    status: int | None = None
    request_id: str | None = None
    retry: bool = False
    pause: float | None = None
    cause: BaseException | None = None

    def error(self, tries: int = 1) -> ApiError:
        """The error to raise after `tries` tries."""
        count = f" ({tries} tries)" if tries > 1 else ""
        label = f" (x-request-id {self.request_id})" if self.request_id else ""
        error = self.kind(
            f"{self.message}{count}{label}", hint=self.hint, status=self.status, request_id=self.request_id
        )
        error.__cause__ = self.cause
        return error


class Answer(NamedTuple):
    """What came back. `request` names in messages what was asked for; `status` is None when nothing came."""

    request: str
    status: int | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""


def clean(text: str, key: str) -> str:
    """Text of a stranger, fit for a message: no key, one line, not long."""
    text = _KEY_LIKE.sub("<SECRET>", text.replace(key, "<SECRET>"))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"


def api_message(body: bytes) -> str:
    """What the API says in an error body: `{"error": {"message": …}}` or `{"error": …}`; "" for any other form."""
    try:
        error = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    for name in ("error", "message"):
        if isinstance(error, dict):
            error = error.get(name, "")
    return error if isinstance(error, str) else ""


def answer_fault(answer: Answer, *, now: float, key: str) -> Fault:
    """The fault of an answer with another status than 200. `now` is Unix time; `key` is cleaned from what is quoted."""
    status, headers = answer.status or 0, answer.headers
    said = clean(api_message(answer.body), key)
    message = f"{answer.request}: {status} {_phrase(status)}" + (f": {said}" if said else "")
    request_id = _request_id(answer, key)
    if status in _REFUSED:
        hint = _KEY_NEEDED + (_ALSO_403 if status == 403 else "")
        return Fault(ApiRefused, message, hint, status, request_id)
    if 300 <= status < 400:
        target = clean(_target(headers.get("Location", "")), key)
        hint = "The key is not sent on to another address: set base_url to where the API is."
        return Fault(ApiRejected, f"{message} to {target}", hint, status, request_id)
    if status < 400:
        return Fault(ApiProtocolError, f"{message}, expected 200", "", status, request_id)
    transient = status in _RETRIED or status >= 500
    # The header of OpenAI's own SDKs: false for a used-up quota, which no waiting mends.
    retry = {"true": True, "false": False}.get(headers.get("x-should-retry", "").lower(), transient)
    pause = retry_after(headers, now)
    if transient:
        return Fault(ApiUnavailable, message, _OVERLOADED, status, request_id, retry, pause)
    return Fault(ApiRejected, message, _rejected_hint(status), status, request_id, retry, pause)


def body_fault(answer: Answer, error: IncompleteJSONError | ApiProtocolError, *, key: str) -> Fault:
    """The fault of a 200 whose body is cut, which is asked for again, or is whole and breaks the contract."""
    message = f"{answer.request}: {clean(str(error), key)}"
    retry = isinstance(error, IncompleteJSONError)
    hint = "" if isinstance(error, IncompleteJSONError) else error.hint
    return Fault(ApiProtocolError, message, hint, answer.status, _request_id(answer, key), retry)


def connection_fault(answer: Answer, error: Exception, *, key: str) -> Fault:
    """The fault of a request that got no whole answer. The message never quotes the exception: it may hold a secret."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        hint = "Check the proxy's address, user and password."
        message = f"{answer.request}: the proxy answered {error.status} {_phrase(error.status)}"
        return Fault(ApiUnavailable, message, hint, retry=error.status in _RETRIED or error.status >= 500)
    hint, reason, retry = _UNREACHABLE, type(error).__name__, True
    if refused := refusal(error):
        (reason, hint), retry = refused, False
    elif isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        hint = "Check base_url, the proxy and ca_file: the other end may not speak TLS."
        reason = f"TLS failed: {reason}"
    elif isinstance(error, TimeoutError):
        reason = "no answer in time"
    elif isinstance(error, OSError) and error.strerror:
        reason = f"{reason}: {error.strerror}"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) and retry else None
    message = f"{answer.request}: {reason}"
    return Fault(ApiUnavailable, message, hint, answer.status, _request_id(answer, key), retry, cause=cause)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds the server asks to be left alone: retry-after-ms, or Retry-After as seconds or as an HTTP date.

    None when it does not ask, when it cannot be read, and when the moment has passed.
    """
    milliseconds = _seconds(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("Retry-After", "")
    seconds = _seconds(text)
    if seconds is not None or not text:
        return seconds
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return moment - now if moment > now else None


def backoff(attempt: int, ceiling: float, random: Callable[[], float]) -> float:
    """Full jitter: anything from 0 to a bound that doubles with each attempt (the first is 1), at most `ceiling`."""
    return random() * min(ceiling, _FIRST_BACKOFF * 2.0 ** (attempt - 1))


def _request_id(answer: Answer, key: str) -> str | None:
    return clean(answer.headers.get("x-request-id", ""), key) or None


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(no standard status)"


def _target(location: str) -> str:
    """Where a redirect points, without user, password and query."""
    try:
        url = URL(location)
        return str(url.with_user(None).with_query(None).with_fragment(None)) if url.host else "another path"
    except ValueError:
        return "an address that is none"


def _rejected_hint(status: int) -> str:
    if status == 404:
        return "Check base_url: it ends in /v1 for api.openai.com."
    if status == 407:
        return "Check the proxy's user and password."
    return ""
