"""The client against a server that misbehaves. Nothing here waits: the clock moves only when the client sleeps."""

from __future__ import annotations

import gzip
import logging
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import structlog
from pydantic import SecretStr
from structlog.testing import capture_logs

from shipper import __version__
from shipper.config import Settings, SourceSettings
from shipper.errors import (
    ApiError,
    ApiProtocolError,
    ApiRefused,
    ApiRejected,
    ApiUnavailable,
    ExitCode,
)
from shipper.fetch import client as client_module
from shipper.fetch.client import AdminClient
from shipper.fetch.paging import parse_page
from shipper.fetch.ratelimit import RateLimiter
from shipper.model import Page
from tests.fetch.api import KEY, Answer, Clock, client, serve

PAGE = b'{"object":"list","data":[{"id":"e1"},{"id":"e2"}],"has_more":false}'
EVENTS = Page((b'{"id":"e1"}', b'{"id":"e2"}'))
NOW = datetime(2026, 11, 20, 8, 0, 0, tzinfo=UTC)


async def test_a_request_carries_key_organization_and_version_and_returns_the_parsed_body() -> None:
    """One GET, with every header the API wants; nothing else is counted."""
    async with serve(Answer(body=PAGE)) as api, client(api.url, organization="org-1") as admin:
        page = await admin.get(
            "organization/audit_logs", [("effective_at[gte]", "5"), ("after", "a+b&c")], parse=parse_page
        )
    request = api.asked[0]
    assert page == EVENTS
    assert request.method == "GET"
    assert request.path == "/v1/organization/audit_logs"
    assert api.queries == [[("effective_at[gte]", "5"), ("after", "a+b&c")]]
    sent = {name: request.headers[name] for name in request.headers if name != "Host"}
    assert sent == {
        "User-Agent": f"openai-audit-shipper/{__version__}",
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
        "Authorization": f"Bearer {KEY}",
        "OpenAI-Organization": "org-1",
    }
    assert (admin.requests, admin.retries) == (1, 0)


async def test_a_base_url_may_end_in_a_slash_and_no_organization_header_is_sent_without_one() -> None:
    """`…/v1/` and `…/v1` ask for the same path."""
    async with serve() as api, client(api.url + "/") as admin:
        await admin.get("/organization/audit_logs", parse=bytes)
    assert api.asked[0].path == "/v1/organization/audit_logs"
    assert "OpenAI-Organization" not in api.asked[0].headers


BROKEN = {
    "408": Answer(408),
    "409": Answer(409),
    "429": Answer(429),
    "500": Answer(500),
    "503 with HTML": Answer(503, b"<html>busy</html>"),
    "529": Answer(529),
    "error body cut": Answer(500, b'{"error"', length=500, reset=True),
    "reset before the answer": Answer(body=b"", length=len(PAGE), reset=True),
    "reset in the body": Answer(body=PAGE[:30], length=len(PAGE), reset=True),
    "reset in a chunked body": Answer(body=PAGE[:30], chunked=True, reset=True),
    "cut body with a matching length": Answer(body=PAGE[:30]),
    "cut body that ends with the connection": Answer(body=PAGE[:30], until_close=True),
    "empty body": Answer(body=b""),
    "damaged gzip": Answer(body=b"\x1f\x8b\x08\x00garbage-garbage", headers={"Content-Encoding": "gzip"}),
    "cut gzip": Answer(body=gzip.compress(PAGE)[:-12], headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
async def test_what_may_pass_is_asked_for_again(answer: Answer) -> None:
    """Two failures of each kind, then the page: the page arrives whole, and each retry is counted."""
    clock = Clock()
    async with serve(answer, answer, Answer(body=PAGE)) as api, client(api.url, clock) as admin:
        page = await admin.get("organization/audit_logs", parse=parse_page)
    assert page == EVENTS
    assert (len(api.asked), admin.requests, admin.retries) == (3, 3, 2)
    assert clock.slept == [1.0, 2.0]


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
async def test_what_never_passes_is_one_error_after_the_last_try(answer: Answer) -> None:
    """`retries` is the number of further tries; the error says how many there were, and holds the request id."""
    async with serve(answer) as api, client(api.url, retries=2) as admin:
        with pytest.raises((ApiUnavailable, ApiProtocolError)) as caught:
            await admin.get("organization/audit_logs", parse=parse_page)
    assert len(api.asked) == 3
    assert caught.value.exit_code == ExitCode.UNAVAILABLE
    assert "GET organization/audit_logs" in str(caught.value)
    assert "(3 tries)" in str(caught.value)
    if answer.status != 200:
        assert type(caught.value) is ApiUnavailable
        assert (caught.value.status, caught.value.request_id) == (answer.status, "req_7")
        assert "req_7" in str(caught.value)
        assert caught.value.hint


async def test_a_connection_that_breaks_in_the_body_still_names_the_request() -> None:
    """The answer had begun: its x-request-id is what support asks for."""
    async with serve(Answer(body=PAGE[:30], length=len(PAGE), reset=True)) as api, client(api.url, retries=0) as admin:
        with pytest.raises(ApiUnavailable, match=r"^GET x: ClientPayloadError \(x-request-id req_7\)$") as caught:
            await admin.get("x", parse=parse_page)
    assert (caught.value.status, caught.value.request_id) == (200, "req_7")


async def test_a_body_that_stays_cut_is_a_protocol_error_with_its_request_id() -> None:
    """The server says all is well each time: it is the contract that is broken, not the connection."""
    async with serve(Answer(body=PAGE[:30])) as api, client(api.url, retries=1) as admin:
        with pytest.raises(ApiProtocolError) as caught:
            await admin.get("x", parse=parse_page)
    assert (caught.value.status, caught.value.request_id, len(api.asked)) == (200, "req_7", 2)


async def test_a_whole_body_that_is_no_page_is_not_asked_for_again() -> None:
    """HTML with status 200 is a wrong address or a proxy: said at once, with a hint."""
    async with serve(Answer(body=b"<html>")) as api, client(api.url) as admin:
        with pytest.raises(ApiProtocolError) as caught:
            await admin.get("x", parse=parse_page)
    assert len(api.asked) == 1
    assert "base_url" in caught.value.hint
    assert caught.value.request_id == "req_7"


async def test_a_refused_connection_is_tried_again_and_then_said() -> None:
    """Nothing listens: no status, the reason of the operating system, and where to look."""
    async with serve() as api:
        pass
    clock = Clock()
    async with client(api.url, clock, retries=3) as admin:
        with pytest.raises(ApiUnavailable) as caught:
            await admin.get("x", parse=bytes)
    assert (caught.value.status, caught.value.request_id) == (None, None)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert clock.slept == [1.0, 2.0, 4.0]
    assert "base_url" in caught.value.hint


async def test_a_server_that_never_answers_meets_the_timeout() -> None:
    """The whole answer has to come within request_timeout."""
    async with (
        serve(Answer(hang=True)) as api,
        client(api.url, retries=1, request_timeout=timedelta(milliseconds=20)) as admin,
    ):
        with pytest.raises(ApiUnavailable, match=r"GET x: no answer in time \(2 tries\)"):
            await admin.get("x", parse=bytes)
    assert len(api.asked) == 2


PAUSES: dict[str, tuple[dict[str, str], float]] = {
    "seconds": ({"Retry-After": "7"}, 7.0),
    "fraction": ({"Retry-After": "0.5"}, 0.5),
    "milliseconds": ({"retry-after-ms": "1500"}, 1.5),
    "milliseconds win": ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25),
    "date": ({"Retry-After": format_datetime(NOW.replace(second=42), usegmt=True)}, 42.0),
    "date in the past": ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 1.0),
    "above the ceiling": ({"Retry-After": "86400"}, 120.0),
    "date above the ceiling": ({"Retry-After": format_datetime(NOW.replace(day=30), usegmt=True)}, 120.0),
    "zero": ({"Retry-After": "0"}, 1.0),
    "negative": ({"Retry-After": "-3"}, 1.0),
    "not a number": ({"Retry-After": "nan"}, 1.0),
    "infinite": ({"Retry-After": "inf"}, 1.0),
    "nonsense": ({"Retry-After": "soon", "retry-after-ms": "later"}, 1.0),
    "absent": ({}, 1.0),
}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("headers", "pause"), PAUSES.values(), ids=PAUSES.keys())
async def test_the_server_says_how_long_to_wait(headers: dict[str, str], pause: float, status: int) -> None:
    """Each form of Retry-After is obeyed up to the ceiling; anything unusable falls back to the jittered backoff."""
    clock = Clock(NOW.timestamp())
    async with serve(Answer(status, headers=headers), Answer(body=PAGE)) as api, client(api.url, clock) as admin:
        assert await admin.get("x", parse=parse_page) == EVENTS
    assert clock.slept == [pytest.approx(pause)]


async def test_backoff_doubles_up_to_the_ceiling() -> None:
    """With the jitter at its upper bound: 1, 2, 4 … and never above retry_ceiling."""
    clock = Clock()
    async with serve(Answer(500)) as api, client(api.url, clock, retries=6, retry_ceiling="10s") as admin:
        with pytest.raises(ApiUnavailable):
            await admin.get("x", parse=bytes)
    assert clock.slept == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


async def test_a_429_slows_all_requests_of_the_key() -> None:
    """The limiter is told: half the pace, and silence for as long as the server asked."""
    pace = Clock(0.0)
    limiter = RateLimiter(10.0, clock=pace, sleep=pace.sleep)
    async with serve(Answer(429, headers={"Retry-After": "3"}), Answer(body=PAGE)) as api:
        source = SourceSettings(admin_key=SecretStr(KEY), base_url=api.url)
        async with AdminClient(source, Settings(), limiter=limiter, sleep=Clock().sleep) as admin:
            await admin.get("x", parse=parse_page)
    assert pace.slept == [pytest.approx(3.0)]
    assert limiter.rate == pytest.approx(5.0 + 0.2)


@pytest.mark.parametrize(
    ("status", "header", "tries", "kind"),
    [
        (429, "false", 1, ApiUnavailable),
        (500, "False", 1, ApiUnavailable),
        (400, "true", 3, ApiRejected),
        (401, "true", 1, ApiRefused),
        (500, "perhaps", 3, ApiUnavailable),
    ],
)
async def test_x_should_retry_is_obeyed_except_for_a_refused_key(
    status: int, header: str, tries: int, kind: type[ApiError]
) -> None:
    """A used-up quota is a 429 that no waiting mends; a refused key is never tried again."""
    answer = Answer(status, headers={"x-should-retry": header})
    async with serve(answer) as api, client(api.url, retries=2) as admin:
        with pytest.raises(kind):
            await admin.get("x", parse=bytes)
    assert len(api.asked) == tries


REFUSALS = {
    "object": (
        b'{"error":{"message":"Missing scopes: api.audit_logs.read","type":"x"}}',
        ": Missing scopes: api.audit_logs.read",
    ),
    "text": (b'{"error":"You may not"}', ": You may not"),
    "message only": (b'{"message":"no"}', ""),
    "empty": (b"", ""),
    "html": (b"<html><b>Forbidden</b></html>", ""),
    "null": (b'{"error":null}', ""),
    "list": (b'[{"error":1}]', ""),
    "nested": (b'{"error":{"message":{"message":"deep"}}}', ""),
    "invalid utf-8": (b'{"error":"\xff"}', ""),
    "key echoed": (
        f'{{"error":{{"message":"Incorrect API key provided: {KEY}."}}}}'.encode(),
        ": Incorrect API key provided: <SECRET>.",
    ),
    "another key": (b'{"error":"Bad key sk-proj-abc***xyz, sorry"}', ": Bad key <SECRET>, sorry"),
    "control characters": (b'{"error":"a\\u001b[31m\\nb"}', ": a [31m b"),
    "long": (b'{"error":"' + b"x" * 5000 + b'"}', ": " + "x" * 299 + "…"),
}


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(("body", "said"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_refused_key_is_one_error_at_once_whatever_the_body(status: int, body: bytes, said: str) -> None:
    """The hint names the admin key and the scope; a 403 also what else may stand in the way."""
    async with serve(Answer(status, body)) as api, client(api.url) as admin:
        with pytest.raises(ApiRefused) as caught:
            await admin.get("organization/audit_logs", parse=parse_page)
    phrase = {401: "Unauthorized", 403: "Forbidden"}[status]
    assert str(caught.value) == f"GET organization/audit_logs: {status} {phrase}{said} (x-request-id req_7)"
    assert (caught.value.status, caught.value.request_id) == (status, "req_7")
    assert caught.value.exit_code == ExitCode.NOPERM
    assert "sk-admin-" in caught.value.hint
    assert "api.audit_logs.read" in caught.value.hint
    assert ("allowlist" in caught.value.hint) is (status == 403)
    assert len(api.asked) == 1


async def test_a_refusal_whose_body_breaks_off_is_still_a_refusal() -> None:
    """The status says it; trying again would not help."""
    answer = Answer(401, b'{"error":', length=500, reset=True)
    async with serve(answer) as api, client(api.url) as admin:
        with pytest.raises(ApiRefused, match=r"^GET x: 401 Unauthorized \(x-request-id req_7\)$"):
            await admin.get("x", parse=bytes)
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    ("status", "kind", "message", "hint"),
    [
        (400, ApiRejected, "400 Bad Request: no", ""),
        (404, ApiRejected, "404 Not Found: no", "base_url"),
        (407, ApiRejected, "407 Proxy Authentication Required: no", "proxy"),
        (422, ApiRejected, "422 Unprocessable", ""),
        (499, ApiRejected, "499 (no standard status): no", ""),
        (202, ApiProtocolError, "202 Accepted: no, expected 200", ""),
    ],
)
async def test_other_answers_are_errors_at_once(status: int, kind: type[ApiError], message: str, hint: str) -> None:
    """Asking again would bring the same answer."""
    async with serve(Answer(status, b'{"error":{"message":"no"}}')) as api, client(api.url) as admin:
        with pytest.raises(kind) as caught:
            await admin.get("x", parse=bytes)
    assert type(caught.value) is kind
    assert f"GET x: {message}" in str(caught.value)
    assert hint in caught.value.hint
    assert (len(api.asked), caught.value.status, caught.value.request_id) == (1, status, "req_7")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed_with_the_key(status: int) -> None:
    """The other host is not asked at all; the error says where it is, without password and query."""
    async with serve() as other:
        target = other.url.replace("127.0.0.1", "user:pass@127.0.0.1") + "/elsewhere?token=1"
        async with serve(Answer(status, b"", {"Location": target})) as api, client(api.url) as admin:
            with pytest.raises(ApiRejected) as caught:
                await admin.get("x", parse=bytes)
    assert other.asked == []
    assert f"{other.url}/elsewhere" in str(caught.value)
    assert "pass" not in str(caught.value)
    assert "token" not in str(caught.value)
    assert "base_url" in caught.value.hint


@pytest.mark.parametrize("location", ["/v1/there", "", "http://[broken"])
async def test_a_redirect_without_a_host_is_not_followed_either(location: str) -> None:
    """One rule for all redirects."""
    async with serve(Answer(307, b"", {"Location": location})) as api, client(api.url) as admin:
        with pytest.raises(ApiRejected, match="307 Temporary Redirect"):
            await admin.get("x", parse=bytes)
    assert len(api.asked) == 1


async def test_a_compressed_answer_is_the_plain_page() -> None:
    """gzip is undone before the events are sliced."""
    answer = Answer(body=gzip.compress(PAGE), headers={"Content-Encoding": "gzip"})
    async with serve(answer) as api, client(api.url) as admin:
        assert await admin.get("x", parse=parse_page) == EVENTS


async def test_a_body_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too long to be a page is an error and not all of the memory, compressed or not."""
    monkeypatch.setattr(client_module, "MAX_BODY", 100_000)
    bomb = Answer(body=gzip.compress(b" " * 50_000_000), headers={"Content-Encoding": "gzip"})
    for answer in (Answer(body=b" " * 100_001), bomb):
        async with serve(answer) as api, client(api.url) as admin:
            with pytest.raises(ApiProtocolError, match=r"longer than 100000 bytes \(x-request-id req_7\)"):
                await admin.get("x", parse=parse_page)
        assert len(api.asked) == 1


async def test_a_bug_in_the_parser_is_not_taken_for_a_fault_of_the_api() -> None:
    """Only the two errors a parser may raise are translated."""

    def parse(body: bytes) -> None:
        raise KeyError(body)

    async with serve() as api, client(api.url) as admin:
        with pytest.raises(KeyError):
            await admin.get("x", parse=parse)
    assert len(api.asked) == 1


async def test_a_client_outside_of_its_block_is_a_bug() -> None:
    """Neither before nor after."""
    admin = client("http://127.0.0.1:1/v1")
    with pytest.raises(RuntimeError, match="async with"):
        await admin.get("x", parse=bytes)
    async with admin:
        pass
    await admin.__aexit__(None, None, None)
    with pytest.raises(RuntimeError, match="async with"):
        await admin.get("x", parse=bytes)


LEAKS: dict[str, Answer] = {
    "401 echo": Answer(401, KEY.encode(), {"x-request-id": KEY}),
    "401 message": Answer(401, f'{{"error":"{KEY}"}}'.encode()),
    "500 message": Answer(500, f'{{"error":{{"message":"{KEY}"}}}}'.encode()),
    "400 message": Answer(400, f'{{"error":"key {KEY} key"}}'.encode()),
    "redirect": Answer(302, b"", {"Location": f"http://other.example/{KEY}?key={KEY}"}),
    "reset": Answer(length=900, reset=True),
    "200 body": Answer(body=KEY.encode()),
    "cursor": Answer(body=f'{{"data":null,"has_more":true,"last_id":"{KEY}"}}'.encode()),
}


@pytest.mark.parametrize("answer", LEAKS.values(), ids=LEAKS.keys())
async def test_the_key_is_in_no_error_log_or_repr(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    """Even when the server sends it back: not in the message, hint, traceback, chained errors, logs and reprs."""
    caplog.set_level(logging.DEBUG)
    with capture_logs() as logs:
        async with serve(answer) as api, client(api.url, retries=1) as admin:
            with pytest.raises(ApiError) as caught:
                await admin.get("x", parse=parse_page)
            shown = [repr(admin), str(admin), repr(vars(admin))]
    assert api.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    error = caught.value
    shown += [str(error), repr(error), repr(vars(error)), repr(logs), caplog.text]
    shown += traceback.format_exception(error)
    cause = error.__cause__ or error.__context__
    shown += [repr(cause), repr(vars(cause)) if cause else ""]
    assert [text for text in shown if KEY in text] == []


async def test_a_key_of_another_form_is_cleaned_too() -> None:
    """A gateway's key need not begin with sk-."""
    key = "gateway-token-1"
    async with serve(Answer(401, f'{{"error":"{key} is unknown"}}'.encode())) as api, client(api.url, key=key) as admin:
        with pytest.raises(ApiRefused, match="<SECRET> is unknown"):
            await admin.get("x", parse=bytes)


async def test_each_retry_is_logged_once_with_reason_and_pause() -> None:
    """An operator sees why a run takes long."""
    structlog.reset_defaults()
    with capture_logs() as logs:
        async with serve(Answer(429, headers={"Retry-After": "5"}), Answer(body=PAGE)) as api, client(api.url) as admin:
            await admin.get("x", parse=parse_page)
    assert logs == [
        {
            "event": "request failed, trying again",
            "log_level": "info",
            "reason": "GET x: 429 Too Many Requests",
            "status": 429,
            "request_id": "req_7",
            "attempt": 1,
            "seconds": 5.0,
        }
    ]
