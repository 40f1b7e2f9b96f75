"""What came back: accepted, refused for good, or to be tried again, for each destination. No secret is ever shown."""

from __future__ import annotations

import logging
import ssl
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from shipper.detect.alerts.answers import Reply, Secrets, Verdict, unanswered
from shipper.detect.alerts.destinations import DESTINATIONS, Item, receiver_of
from shipper.detect.alerts.sender import Sender, proxy_for
from shipper.detect.findings import Finding
from shipper.detection_settings import RouteSettings
from shipper.errors import ConfigError
from tests.detect.alerts import published
from tests.detect.alerts.receivers import Got, Says, receiving
from tests.detect.alerts.routes import KEY, ONE, route, settings
from tests.detect.alerts.samples import HOSTILE, NOW
from tests.fetch.api import Clock
from tests.secrets_scan import canary

OK = {
    "slack": Says(200, b"ok"),
    "pagerduty": Says(202, b'{"status":"success","message":"Event processed","dedup_key":"x"}'),
    "alertmanager": Says(200, b""),
    "webhook": Says(204, b""),
}
KINDS = sorted(OK)


async def send(kind: str, url: str, clock: Clock | None = None, *, one: Finding = ONE, **values: Any) -> Reply:
    """One delivery on a route of this type, with two retries."""
    clock = clock or Clock(NOW)
    loaded = settings(route(kind, url), **values)
    build = DESTINATIONS[kind].build
    assert build is not None
    receiver = receiver_of(loaded.alert_routes[0], loaded)
    async with Sender(loaded, retries=loaded.retries, clock=clock, sleep=clock.sleep, random=lambda: 1.0) as sender:
        return await sender.send(receiver, lambda now: build(receiver, [Item(one)], now))


def problems(kind: str, got: Got) -> list[str]:
    """What the vendor would not take."""
    assert (got.method, got.headers["Content-Type"]) == ("POST", "application/json")
    match kind:
        case "slack":
            return list(published.slack(got.body))
        case "pagerduty":
            return list(published.pagerduty(got.body, KEY))
        case "alertmanager":
            return list(published.alertmanager(got.body))
        case _:
            return list(published.webhook(got.headers, got.body, KEY, NOW))


@pytest.mark.parametrize("kind", KINDS)
async def test_what_arrives_is_what_the_vendor_takes(kind: str) -> None:
    """The bytes on the wire, for every kind of finding, accepted at once."""
    async with receiving(OK[kind]) as receiver:
        for one in HOSTILE.values():
            clock = Clock(NOW)
            reply = await send(kind, receiver.url, clock, one=one)
            assert (reply.verdict, clock.slept) == (Verdict.ACCEPTED, [])
            assert problems(kind, receiver.got[-1]) == []
        assert len(receiver.got) == len(HOSTILE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "trouble",
    [Says(429), Says(500), Says(502), Says(503), Says(504), Says(529), Says(cut=True), Says(200, b"o", short=True)],
    ids=["429", "500", "502", "503", "504", "529", "cut", "cut-body"],
)
async def test_a_passing_failure_is_tried_again(kind: str, trouble: Says) -> None:
    """After pauses that grow, and with the same body but for a time that is signed."""
    async with receiving(trouble, trouble, OK[kind]) as receiver:
        clock = Clock(NOW)
        reply = await send(kind, receiver.url, clock)
        assert (reply.verdict, clock.slept) == (Verdict.ACCEPTED, [1.0, 2.0])
        assert [problems(kind, got) for got in receiver.got] == [[], [], []]
    async with receiving(trouble) as receiver:
        reply = await send(kind, receiver.url)
        assert (reply.verdict, reply.retry, len(receiver.got)) == (Verdict.FAILED, True, 3)


@pytest.mark.parametrize("kind", KINDS)
async def test_no_answer_in_time_is_tried_again(kind: str) -> None:
    async with receiving(Says(hang=True), OK[kind]) as receiver:
        assert (await send(kind, receiver.url, request_timeout="1s")).verdict is Verdict.ACCEPTED
        assert len(receiver.got) == 2
    async with receiving(Says(hang=True)) as receiver:
        reply = await send(kind, receiver.url, request_timeout=timedelta(milliseconds=50), retries=0)
        assert (reply.verdict, reply.message) == (Verdict.FAILED, "no answer in time")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [400, 408, 409, 413, 422])
async def test_what_a_receiver_will_not_have_is_refused_at_once(kind: str, status: int) -> None:
    """No second try; the message says what it said, the hint what to look at."""
    async with receiving(Says(status, b"no_service"), OK[kind]) as receiver:
        clock = Clock(NOW)
        reply = await send(kind, receiver.url, clock)
        assert (reply.verdict, clock.slept, len(receiver.got)) == (Verdict.REFUSED, [], 1)
        assert reply.message.startswith(f"{status} ")
        assert reply.message.endswith(": no_service")
        assert reply.hint.endswith(".")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [401, 403, 404, 405, 410])
async def test_where_the_route_is_wrong_the_alert_waits(kind: str, status: int) -> None:
    """A wrong address or key costs no alert: no second try now, and it stays pending until the route is mended."""
    async with receiving(Says(status, b"no_service"), OK[kind]) as receiver:
        clock = Clock(NOW)
        reply = await send(kind, receiver.url, clock)
        assert (reply.verdict, clock.slept, len(receiver.got)) == (Verdict.FAILED, [], 1)
        assert reply.message.endswith(": no_service")
        assert reply.hint.startswith("Check the route's url")
        assert "stays pending" in reply.hint


@pytest.mark.parametrize(
    ("header", "pause"),
    [("7", 7.0), (formatdate(NOW + 9, usegmt=True), 9.0), ("3600", 30.0), ("soon", 1.0), ("0", 1.0)],
    ids=["seconds", "date", "over-the-ceiling", "nonsense", "zero"],
)
async def test_a_receiver_says_when_to_come_back(header: str, pause: float) -> None:
    async with receiving(Says(429, headers={"Retry-After": header}), OK["slack"]) as receiver:
        clock = Clock(NOW)
        assert (await send("slack", receiver.url, clock)).verdict is Verdict.ACCEPTED
        assert clock.slept == [pause]


async def test_each_try_of_the_webhook_is_signed_anew() -> None:
    """A signature that is as old as the pauses before it may be refused as a replay. The key stays the same."""
    async with receiving(Says(429, headers={"Retry-After": "20"}), OK["webhook"]) as receiver:
        await send("webhook", receiver.url)
        first, second = [got.headers for got in receiver.got]
        assert [first["X-Shipper-Timestamp"], second["X-Shipper-Timestamp"]] == [f"{NOW}", f"{NOW + 20}"]
        assert first["X-Shipper-Signature"] != second["X-Shipper-Signature"]
        assert first["Idempotency-Key"] == second["Idempotency-Key"]


async def test_a_redirect_is_not_followed() -> None:
    async with receiving() as other, receiving(Says(302, b"", {"Location": other.url})) as receiver:
        reply = await send("slack", receiver.url)
        assert (reply.verdict, reply.retry, reply.message) == (Verdict.FAILED, False, "302 Found")
        assert "not sent on" in reply.hint
        assert (len(receiver.got), len(other.got)) == (1, 0)


@pytest.mark.parametrize(
    ("kind", "says", "message"),
    [
        ("slack", Says(200, b"<html>Sign in</html>"), "200 OK, expected 200 ok"),
        ("slack", Says(200, b"welcome"), "200 OK: welcome, expected 200 ok"),
        ("pagerduty", Says(200, b"ok"), "200 OK: ok, expected 202"),
        ("alertmanager", Says(204, b""), "204 No Content, expected 200"),
        ("webhook", Says(299, b""), None),
        ("webhook", Says(999, b""), "999 (no standard status)"),
    ],
)
async def test_an_answer_that_nobody_promised_is_no_acceptance(kind: str, says: Says, message: str | None) -> None:
    """Such as a portal's page with status 200. It is not the receiver's refusal either: the alert stays."""
    async with receiving(says) as receiver:
        reply = await send(kind, receiver.url, retries=0)
        wanted = Reply(Verdict.ACCEPTED, "299 (no standard status)").verdict if message is None else Verdict.FAILED
        assert (reply.verdict, reply.message) == (wanted, message or "299 (no standard status)")


async def test_a_long_answer_is_read_no_further_than_needed() -> None:
    async with receiving(Says(400, b"x" * 5_000_000)) as receiver:
        reply = await send("slack", receiver.url)
        assert (reply.verdict, len(reply.message)) == (Verdict.REFUSED, len("400 Bad Request: ") + 200)


async def test_nobody_there_is_a_failure() -> None:
    async with receiving() as receiver:
        url = receiver.url
    reply = await send("slack", url, retries=0)
    assert (reply.verdict, reply.retry) == (Verdict.FAILED, True)
    assert reply.message.startswith("ClientConnectorError")
    assert "127.0.0.1" not in reply.message


async def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    error = aiohttp.ClientConnectorCertificateError(None, ssl.SSLCertVerificationError(1, "self-signed"))  # type: ignore[arg-type]
    reply = unanswered(error)
    assert (reply.verdict, reply.retry) == (Verdict.FAILED, False)
    assert "is not trusted" in reply.message
    assert "ca_file" in reply.hint
    assert unanswered(ssl.SSLError(1, "wrong version")).message == "TLS failed: SSLError"
    assert unanswered(ConnectionResetError(104, "Connection reset by peer")).message == (
        "ConnectionResetError: Connection reset by peer"
    )
    assert unanswered(aiohttp.InvalidURL("http://secret")).message == "the route's url is not one"


@pytest.mark.parametrize(("status", "retry"), [(407, False), (403, False), (502, True)])
async def test_a_proxy_that_refuses_is_not_the_receiver(status: int, *, retry: bool) -> None:
    """Whatever it says, the alert stays."""
    async with receiving(Says(status, b"no")) as proxy:
        reply = await send("slack", "https://hooks.slack.example/services/x", proxy=proxy.url, retries=0)
        assert (reply.verdict, reply.retry) == (Verdict.FAILED, retry)
        assert reply.message.startswith(f"the proxy answered {status} ")
    async with receiving(Says(407, b"no")) as proxy:
        loaded: dict[str, Any] = {"proxy": proxy.url, "retries": 0, "allow_plaintext": True}
        assert (await send("slack", "http://hooks.slack.example/services/x", **loaded)).verdict is Verdict.FAILED


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [200, 302, 400, 500])
async def test_no_secret_is_shown_whatever_comes_back(
    kind: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A receiver that repeats the URL and the key: not in the reply, not in a log line, not in any repr."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    path = f"/services/T000/{canary('path')}?token={canary('query')}"
    async with receiving() as receiver:
        url = f"http://me:{canary('password')}@{receiver.url.removeprefix('http://')}{path}"
        known = [url, path, canary("query"), *([KEY] if kind in {"pagerduty", "webhook"} else [])]
        receiver.answers = [Says(status, f"no such hook {' '.join(known)}".encode())]
        reply = await send(kind, url)
        assert receiver.got[0].method == "POST"
        loaded = settings(route(kind, url))
        checked = receiver_of(loaded.alert_routes[0], loaded)
        build = DESTINATIONS[kind].build
        assert build is not None
        shown = "".join([repr(reply), repr(checked), repr(build(checked, [Item(ONE)], NOW)), repr(loaded)])
        shown += "".join(capsys.readouterr())
        for secret in ("path", "query", "password", "alerts"):
            assert canary(secret) not in shown
        assert "<SECRET>" in reply.message or reply.message == "200 OK"
    structlog.reset_defaults()


def test_every_part_of_a_url_is_cleaned() -> None:
    secrets = Secrets.of("https://u:pw@host/services/T0000000/B11111111?a=b&token=cccccccc", "k")
    assert secrets.clean("T0000000 B11111111 cccccccc pw host") == "<SECRET> <SECRET> <SECRET> <SECRET> host"
    assert "T0000000" not in repr(secrets)
    assert secrets.clean("a\nb\x1b[1m") == "a b [1m"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": "hooks.slack.com/services/x"}, "alert route 'slack': url: expected https://host/…"),
        ({"url": "ftp://host/x"}, "alert route 'slack': url: expected https://host/…"),
        ({"url": "https://[x"}, "alert route 'slack': url: expected https://host/…"),
        ({"url": " "}, "alert route 'slack': url: expected https://host/…"),
        (
            {"url": "http://hooks.slack.example/x"},
            "alert route 'slack': its alerts would be sent unencrypted to hooks.slack.example",
        ),
        (
            {"type": "webhook", "url": "https://host/x", "key": " "},
            "alert route 'slack': the key is empty",
        ),
    ],
)
def test_a_route_that_cannot_work_is_a_wrong_setting(given: dict[str, Any], message: str) -> None:
    one = RouteSettings(**{"name": "slack", "type": "slack", **given})
    with pytest.raises(ConfigError) as caught:
        receiver_of(one, settings(one))
    assert str(caught.value) == message


def test_plain_http_needs_this_machine_or_permission() -> None:
    for url, values in (
        ("http://127.0.0.1:1/x", {}),
        ("http://localhost/x", {}),
        ("http://[::1]/x", {}),
        ("http://soc.example/x", {"allow_plaintext": True}),
        ("https://soc.example/x", {}),
    ):
        loaded = settings(route("slack", url), **values)
        assert str(receiver_of(loaded.alert_routes[0], loaded).url) == url


def test_pagerduty_has_an_address_of_its_own() -> None:
    loaded = settings(route("pagerduty"))
    receiver = receiver_of(loaded.alert_routes[0], loaded)
    assert str(receiver.url) == "https://events.pagerduty.com/v2/enqueue"


@pytest.mark.parametrize("url", ["https://am.example/prefix", "https://am.example/prefix/"])
def test_alertmanager_may_live_under_a_path(url: str) -> None:
    loaded = settings(route("alertmanager", url))
    build = DESTINATIONS["alertmanager"].build
    assert build is not None
    request = build(receiver_of(loaded.alert_routes[0], loaded), [Item(ONE)], NOW)
    assert str(request.url) == "https://am.example/prefix/api/v2/alerts"


def test_the_proxy_is_the_settings_or_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for this machine nor for the hosts of NO_PROXY."""
    loaded = settings(route("slack", "https://hooks.slack.com/x"))
    receiver = receiver_of(loaded.alert_routes[0], loaded)
    assert receiver.proxy is None
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    assert str(proxy_for(receiver.url, loaded)) == "http://proxy.example:3128"
    explicit = settings(proxy="http://other.example:3128")
    assert str(proxy_for(receiver.url, explicit)) == "http://other.example:3128"
    assert proxy_for(receiver.url.with_host("127.0.0.1"), explicit) is None
    monkeypatch.setenv("NO_PROXY", "slack.com")
    assert proxy_for(receiver.url, explicit) is None
    monkeypatch.delenv("NO_PROXY")
    for wrong, message in (
        ("http://", "proxy: expected http://host:port"),
        ("http://[x", "proxy: expected http://host:port"),
        (
            f"http://me:{canary('proxy')}@p.example",
            "proxy: the proxy's password would be sent unencrypted to p.example",
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            proxy_for(receiver.url, settings(proxy=wrong))
        assert str(caught.value) == message


def test_ca_file_is_trusted_besides_the_systems(tmp_path: Path) -> None:
    authority = Path(__file__).parents[2] / "fetch" / "authority.pem"
    plain, more = (Sender(settings(**values), retries=0) for values in ({}, {"ca_file": authority}))
    assert len(more._ssl.get_ca_certs()) == len(plain._ssl.get_ca_certs()) + 1
    (tmp_path / "empty.pem").write_text("nothing")
    for name, what in (("empty.pem", "unreadable"), ("missing.pem", "No such file or directory")):
        with pytest.raises(ConfigError) as caught:
            Sender(settings(ca_file=tmp_path / name), retries=0)
        assert str(caught.value) == f"ca_file {tmp_path / name}: {what}, expected PEM certificates"


async def test_a_sender_is_for_its_block() -> None:
    loaded = settings(route("slack", "https://x"))
    receiver = receiver_of(loaded.alert_routes[0], loaded)
    build = DESTINATIONS["slack"].build
    assert build is not None
    with pytest.raises(RuntimeError, match="outside"):
        await Sender(loaded, retries=0).send(receiver, lambda now: build(receiver, [Item(ONE)], now))
