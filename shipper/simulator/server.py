"""The simulated API: `Api` decides every answer without a socket, `application` puts it behind aiohttp."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Literal

import orjson
from aiohttp import web

from shipper.model import Lane
from shipper.simulator import inventory
from shipper.simulator.catalog import lanes
from shipper.simulator.log import EventLog, Page, as_body, as_documents
from shipper.simulator.misbehave import Fault, Misbehaviour
from shipper.simulator.organization import Organization
from shipper.simulator.query import BadRequest, Query, parse_query

AUDIT_LOGS = "/v1/organization/audit_logs"
# An admin key that has been made without the scopes these paths need.
RESTRICTED_KEY = "sk-admin-restricted"
_LOG_LENGTH = 100_000


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. With `broken` the connection ends half-way through the body: by FIN, or by RST."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    broken: Literal["", "closed", "reset"] = ""


def problem(status: int, message: str, *, kind: str, param: str | None = None, code: str | None = None) -> Answer:
    """The documented error object."""
    error = {"message": message, "type": kind, "param": param, "code": code}
    return Answer(status, orjson.dumps({"error": error}))


def _missing_scope(path: str) -> Answer:
    """The other form: `error` is a string. Seen live for keys without the scope."""
    scope = "api.audit_logs.read" if path == AUDIT_LOGS else "api.management.read"
    text = (
        f"You have insufficient permissions for this operation. Missing scopes: {scope}. Check that you have the "
        "correct role in your organization, and if you're using a restricted API key, that it has the necessary scopes."
    )
    return Answer(403, orjson.dumps({"error": text}))


def _wrong_key(message: str) -> Answer:
    return problem(401, message, kind="invalid_request_error", code="invalid_api_key")


def _bad_request(bad: BadRequest) -> Answer:
    return problem(bad.status, bad.message, kind="invalid_request_error", param=bad.param, code=bad.code)


@dataclass(slots=True)
class Api:
    """Everything the API knows and how it answers. Time comes from `clock`, Unix seconds."""

    organization: Organization
    log: EventLog
    admin_key: str = field(repr=False)
    misbehaviour: Misbehaviour
    clock: Callable[[], float]
    requests: int = 0
    asked: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_LOG_LENGTH))
    _authorized: int = 0
    _tokens: float = 1.0
    _refilled: float = -math.inf

    def answer(self, method: str, path: str, query_string: str, headers: Mapping[str, str]) -> Answer:
        """The answer to one request. Every answer carries an x-request-id, and no two the same."""
        self.requests += 1
        self.asked.append((path, query_string))
        found = self._answer(method, path, query_string, headers, self.requests)
        name = blake2b(f"{self.misbehaviour.seed}/{self.requests}".encode(), digest_size=16).hexdigest()
        return replace(found, headers={**found.headers, "x-request-id": f"req_{name}"})

    def _answer(self, method: str, path: str, query_string: str, headers: Mapping[str, str], request: int) -> Answer:
        if refused := self._authorize(path, headers):
            return refused
        if not self._within_rate():
            wait = max(1, math.ceil((1 - self._tokens) / self.misbehaviour.rate))
            return _too_many(("Retry-After", str(wait)))
        fault = self.misbehaviour.fault(request)
        if fault is Fault.ERRORS:
            return self._server_error(request)
        if fault is Fault.THROTTLE:
            return _too_many(self.misbehaviour.retry_after_header(request, self.clock()))
        return self._spoilt(self._route(method, path, query_string, fault), fault, request)

    def _spoilt(self, answer: Answer, fault: Fault | None, request: int) -> Answer:
        """The answer with less of its body than it should have, when that is the fault."""
        if fault is Fault.CUT:
            return replace(answer, body=answer.body[: len(answer.body) * 2 // 3])
        if fault is Fault.RESET:
            return replace(answer, broken=self.misbehaviour.draw(request, "reset").choice(("closed", "reset")))
        return answer

    def _authorize(self, path: str, headers: Mapping[str, str]) -> Answer | None:
        scheme, _, key = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            return _wrong_key("You didn't provide an API key. Send it as: Authorization: Bearer YOUR_KEY.")
        key = key.strip()
        if key.startswith("sk-proj-") or key == RESTRICTED_KEY:
            return _missing_scope(path)
        if key != self.admin_key:
            return _wrong_key(f"Incorrect API key provided: {key[:3]}***.")
        self._authorized += 1
        if self.misbehaviour.revoke_after and self._authorized > self.misbehaviour.revoke_after:
            return _wrong_key(f"Incorrect API key provided: {key[:3]}***.")
        if headers.get("OpenAI-Organization", self.organization.id) != self.organization.id:
            message = "OpenAI-Organization header should match organization for API key"
            return problem(401, message, kind="invalid_request_error", code="mismatched_organization")
        return None

    def _within_rate(self) -> bool:
        """Take one of the tokens, which come back at `rate` a second up to one second's worth."""
        rate = self.misbehaviour.rate
        if not rate:
            return True
        now = self.clock()
        self._tokens = min(max(1.0, rate), self._tokens + (now - self._refilled) * rate)
        self._refilled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _server_error(self, request: int) -> Answer:
        if self.misbehaviour.draw(request, "error").random() < 0.5:
            return problem(500, "The server had an error while processing your request.", kind="server_error")
        # A gateway in front of the API does not speak JSON.
        return Answer(502, b"<html><head><title>502 Bad Gateway</title></head></html>", {"Content-Type": "text/html"})

    def _route(self, method: str, path: str, query_string: str, fault: Fault | None) -> Answer:
        found: Answer | bytes | BadRequest | None
        if path == AUDIT_LOGS:
            found = self._audit_logs(query_string, fault)
        else:
            found = inventory.answer(self.organization, path, query_string)
        if found is None:
            return problem(404, f"Invalid URL ({method} {path})", kind="invalid_request_error")
        if method != "GET":
            return problem(405, f"Not allowed to {method} on {path}.", kind="invalid_request_error")
        if isinstance(found, BadRequest):
            return _bad_request(found)
        return Answer(200, found) if isinstance(found, bytes) else found

    def _audit_logs(self, query_string: str, fault: Fault | None) -> Answer | BadRequest | bytes:
        query = parse_query(query_string, lanes())
        if isinstance(query, BadRequest):
            return query
        if query.lane is Lane.TENANT and self.misbehaviour.tenant:
            return self._tenant_refused()
        if fault is Fault.EMPTY:
            return as_body(Page((), has_more=True))
        page = self._page(query, fault)
        if isinstance(page, BadRequest):
            return page
        return as_documents(page, 3) if fault is Fault.DOCUMENTS else as_body(page)

    def _page(self, query: Query, fault: Fault | None) -> Page | BadRequest:
        visible = self.misbehaviour.visible(self.clock())
        page = self.log.page(query, visible)
        if fault is not Fault.REPEAT_CURSOR or query.after is None or isinstance(page, BadRequest):
            return page
        # The page that ended with the cursor, once more.
        newer = self.log.page(replace(query, after=None, before=query.after), visible)
        again = (*(newer.events if isinstance(newer, Page) else ()), self.log.find(query.lane, query.after))
        return Page(again[-query.limit :], has_more=True)

    def _tenant_refused(self) -> Answer:
        if self.misbehaviour.tenant == 403:
            return _missing_scope(AUDIT_LOGS)
        return problem(
            400, "This organization does not belong to a tenant.", kind="invalid_request_error", param="tenant_only"
        )


def _too_many(header: tuple[str, str]) -> Answer:
    refused = problem(429, "Rate limit reached for requests.", kind="requests", code="rate_limit_exceeded")
    return replace(refused, headers=dict((header,)))


def application(api: Api, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> web.Application:
    """The API as an aiohttp application: one handler for every path."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if api.misbehaviour.latency:
            await sleep(api.misbehaviour.latency)
        url = request.rel_url
        answer = api.answer(request.method, url.path, url.raw_query_string, request.headers)
        headers = {"Content-Type": "application/json", **answer.headers}
        if answer.broken:
            return await _break_off(request, answer, headers)
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    return app


async def _break_off(request: web.Request, answer: Answer, headers: Mapping[str, str]) -> web.StreamResponse:
    """Promise the whole body, send half of it, and end the connection."""
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[: len(answer.body) // 2])
    if request.transport is not None:
        if answer.broken == "reset":
            # No lingering: the kernel sends RST in place of FIN, and may drop what it has not sent yet.
            linger = struct.pack("ii", 1, 0)
            request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.transport.abort()
    return response
