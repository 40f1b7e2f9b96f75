"""What the client makes of its settings: addresses, proxies, certificates. No name is looked up."""

from __future__ import annotations

import asyncio
import base64
import ssl
import traceback
from pathlib import Path
from unittest.mock import Mock

import aiohttp
import pytest

from shipper.config import Settings, SourceSettings
from shipper.errors import ApiUnavailable, ConfigError
from shipper.fetch.client import AdminClient
from shipper.fetch.faults import Answer as ApiAnswer
from shipper.fetch.faults import connection_fault
from shipper.fetch.ratelimit import RateLimiter
from tests.fetch.api import KEY, Answer, client, serve

# Nobody resolves this name: a request can only come through when the proxy takes it.
BEHIND_PROXY = "http://api.example.invalid/v1"


@pytest.mark.parametrize(
    "base_url",
    ["", "api.openai.com/v1", "ftp://host/v1", "https:///v1", "http://[broken", "https://h/v1?a=1", "https://h/#x"],
)
def test_a_base_url_that_is_none_is_a_configuration_error(base_url: str) -> None:
    """Said before anything is sent."""
    with pytest.raises(ConfigError, match="base_url of source 'openai': expected https://host/v1"):
        client(base_url)


def test_a_base_url_with_a_password_is_refused_and_not_quoted() -> None:
    """It would replace the key in the request."""
    with pytest.raises(ConfigError) as caught:
        client("https://user:hunter2@host/v1")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("organization", ["org 1", "org-1\nX-Other: 1", "orgé"])
def test_an_organization_that_cannot_be_a_header_is_a_configuration_error(organization: str) -> None:
    """No header is smuggled in."""
    with pytest.raises(ConfigError, match="organization of source 'openai'"):
        client("https://host/v1", organization=organization)


def test_a_missing_key_is_said_when_the_client_is_made() -> None:
    """The run ends before its first request."""
    with pytest.raises(ConfigError, match="no admin key"):
        AdminClient(SourceSettings(), Settings(), limiter=RateLimiter(1.0))


async def test_the_key_comes_from_its_file(tmp_path: Path) -> None:
    """Without the line end an editor leaves."""
    (tmp_path / "admin-key").write_text(KEY + "\n")
    async with serve() as api:
        source = SourceSettings(admin_key_file=tmp_path / "admin-key", base_url=api.url)
        async with AdminClient(source, Settings(), limiter=RateLimiter(100.0)) as admin:
            await admin.get("x", parse=bytes)
    assert api.asked[0].headers["Authorization"] == f"Bearer {KEY}"


async def test_the_configured_proxy_takes_the_request_with_its_own_password() -> None:
    """The proxy's user and password go to the proxy; the key goes through to the API."""
    async with serve() as proxy, client(BEHIND_PROXY, proxy=_with_password(proxy.url), allow_plaintext=True) as admin:
        await admin.get("x", parse=bytes)
    request = proxy.asked[0]
    assert request.headers["Host"] == "api.example.invalid"
    assert request.headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"user:hunter2").decode()
    assert request.headers["Authorization"] == f"Bearer {KEY}"


async def test_a_password_in_netrc_does_not_stand_in_for_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A developer's ~/.netrc is none of the shipper's business."""
    (tmp_path / "netrc").write_text("default login user password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with serve() as api, client(api.url) as admin:
        await admin.get("x", parse=bytes)
    assert api.asked[0].headers.getall("Authorization") == [f"Bearer {KEY}"]


@pytest.mark.parametrize("with_scheme", [True, False])
async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, *, with_scheme: bool) -> None:
    """As curl and the SDKs do; the scheme may be left out."""
    async with serve() as proxy:
        origin = proxy.url.removesuffix("/v1")
        monkeypatch.setenv("http_proxy", origin if with_scheme else origin.removeprefix("http://"))
        async with client(BEHIND_PROXY, allow_plaintext=True) as admin:
            await admin.get("x", parse=bytes)
    assert [request.headers["Host"] for request in proxy.asked] == ["api.example.invalid"]


@pytest.mark.parametrize(
    ("base_url", "environment", "expected"),
    [
        ("https://api.openai.com/v1", {"https_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://api.openai.com/v1", {"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128"),
        ("https://api.openai.com/v1", {"http_proxy": "http://proxy:3128"}, None),
        ("https://api.openai.com/v1", {"https_proxy": "http://proxy:3128", "no_proxy": "openai.com"}, None),
        ("https://api.openai.com/v1", {}, None),
        ("http://localhost:8080/v1", {"http_proxy": "http://proxy:3128"}, None),
        ("http://127.0.0.1:8080/v1", {"http_proxy": "http://proxy:3128"}, None),
        ("http://[::1]:8080/v1", {"http_proxy": "http://proxy:3128"}, None),
    ],
)
def test_which_proxy_the_environment_gives(
    monkeypatch: pytest.MonkeyPatch, base_url: str, environment: dict[str, str], expected: str | None
) -> None:
    """By scheme, minus NO_PROXY, and never for this machine itself."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    proxy = client(base_url)._proxy
    assert (str(proxy).rstrip("/") if proxy else None) == expected


@pytest.mark.parametrize("proxy", ["socks5://user:hunter2@host:1080", "http://", "http://[hunter2"])
def test_a_proxy_that_cannot_work_is_refused_and_not_quoted(proxy: str) -> None:
    """It may hold a password."""
    with pytest.raises(ConfigError, match="proxy: expected http://host:port") as caught:
        client("https://host/v1", proxy=proxy)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("status", "tries"), [(407, 1), (403, 1), (503, 2)])
async def test_a_proxy_that_refuses_the_tunnel_is_said_without_its_password(status: int, tries: int) -> None:
    """aiohttp's own error holds the password in its repr: it is not chained."""
    target = "https://api.example.invalid/v1"
    async with serve(Answer(status, b"")) as proxy, client(target, proxy=_with_password(proxy.url), retries=1) as admin:
        with pytest.raises(ApiUnavailable) as caught:
            await admin.get("x", parse=bytes)
    error = caught.value
    assert [request.method for request in proxy.asked] == ["CONNECT"] * tries
    assert f"the proxy answered {status}" in str(error)
    assert "proxy" in error.hint
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "hunter2" not in "".join(traceback.format_exception(error)) + repr(admin) + error.hint


async def test_a_proxy_out_of_reach_is_said_without_its_password() -> None:
    """Only the operating system's error is chained."""
    async with serve() as proxy:
        pass
    async with client(BEHIND_PROXY, proxy=_with_password(proxy.url), retries=0, allow_plaintext=True) as admin:
        with pytest.raises(ApiUnavailable) as caught:
            await admin.get("x", parse=bytes)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__cause__)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert "hunter2" not in shown


def test_a_ca_file_replaces_the_authorities_of_the_system() -> None:
    """Exactly the certificates of the file are trusted, and names are still checked."""
    context = client("https://host/v1", ca_file=Path(__file__).parent / "authority.pem")._ssl
    assert isinstance(context, ssl.SSLContext)
    assert [ca["subject"] for ca in context.get_ca_certs()] == [((("commonName", "Test authority"),),)]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_ca_file_that_holds_none_is_a_configuration_error(tmp_path: Path, content: bytes | None) -> None:
    """Missing or not PEM: said before the first request."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"ca_file .*expected PEM certificates"):
        client("https://host/v1", ca_file=path)


async def test_a_server_that_speaks_no_tls_is_tried_again() -> None:
    """A gateway may answer so while it restarts."""
    async with serve() as api, client(api.url.replace("http://", "https://"), retries=1) as admin:
        with pytest.raises(ApiUnavailable, match=r"TLS failed: \w+ \(2 tries\)") as caught:
            await admin.get("x", parse=bytes)
    assert "ca_file" in caught.value.hint


async def test_a_server_that_speaks_no_http_is_tried_again() -> None:
    """What it said is not quoted."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello sailor\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, client(f"http://127.0.0.1:{port}/v1", retries=1) as admin:
        with pytest.raises(ApiUnavailable, match=r"^GET x: \w+ \(2 tries\)$") as caught:
            await admin.get("x", parse=bytes)
    assert caught.value.__cause__ is None


def test_a_certificate_that_is_not_trusted_is_not_tried_again() -> None:
    """It stays as it is until somebody acts; the hint says how."""
    error = aiohttp.ClientConnectorCertificateError(
        Mock(host="h", port=443, ssl=True), ssl.SSLCertVerificationError("x")
    )
    fault = connection_fault(ApiAnswer("GET x"), error, key=KEY)
    assert (fault.kind, fault.retry, fault.cause) == (ApiUnavailable, False, None)
    assert "ca_file" in fault.hint


def _with_password(url: str) -> str:
    return url.replace("http://", "http://user:hunter2@").removesuffix("/v1")
