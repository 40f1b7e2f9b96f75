"""TLS towards the API and towards ClickHouse, against servers that really speak it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shipper.config import Settings
from shipper.errors import ApiUnavailable, ConfigError, DatabaseError, ExitCode, ShipperError
from shipper.load.clickhouse import connect
from shipper.load.server import parse
from shipper.tls import client_context, is_loopback, refusal
from tests.certificates import Authority, Pair
from tests.conftest import database_settings
from tests.fetch.api import KEY, client, serve
from tests.tls_front import Front, tls_front


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server_pair(authority: Authority) -> Pair:
    return authority.issue("server", "localhost", "127.0.0.1")


@dataclass(frozen=True)
class Side:
    """One of the two sides. `talk` does one exchange through the front, with settings without their prefix."""

    prefix: str
    error: type[ShipperError]
    front: Callable[[ssl.SSLContext], Any]
    talk: Callable[..., Awaitable[None]]


@pytest.fixture(params=["api", "clickhouse"])
def side(request: pytest.FixtureRequest) -> Side:
    if request.param == "api":
        return Side("", ApiUnavailable, _api_front, _ask_api)
    url: str = request.getfixturevalue("clickhouse_server")

    @asynccontextmanager
    async def front(context: ssl.SSLContext) -> AsyncIterator[Front]:
        with tls_front(url, context) as running:
            yield running

    return Side("clickhouse_", DatabaseError, front, _ask_clickhouse)


@asynccontextmanager
async def _api_front(context: ssl.SSLContext) -> AsyncIterator[Front]:
    async with serve() as api:
        with tls_front(api.url, context) as running:
            yield running


async def _ask_api(port: int, **settings: Any) -> None:
    async with client(f"https://127.0.0.1:{port}/v1", retries=2, **settings) as admin:
        await admin.get("x", parse=bytes)


async def _ask_clickhouse(port: int, **settings: Any) -> None:
    named = {f"clickhouse_{name}": value for name, value in settings.items()}
    # With a password of nothing the certificate would be what the user logs in with.
    database = await connect(database_settings(f"https://default@127.0.0.1:{port}/", retries=2, **named), sleep=_never)
    assert await database.query("SELECT 1") == [(1,)]
    await database.close()


async def _never(_: float) -> None:
    raise AssertionError("nothing here is worth a second try")


async def test_an_authority_that_the_file_names_is_trusted(side: Side, authority: Authority, server_pair: Pair) -> None:
    """The exchange goes through, encrypted."""
    async with side.front(authority.server_context(server_pair)) as front:
        await side.talk(front.port, ca_file=authority.ca_file)
    assert front.heads


@pytest.mark.parametrize("configured", ["nothing", "another authority"])
async def test_a_certificate_nobody_vouches_for_is_refused_after_one_try(
    side: Side, authority: Authority, server_pair: Pair, tmp_path: Path, configured: str
) -> None:
    """Verification is on without any setting. Nothing was sent, and the hint names the setting."""
    other = {"ca_file": Authority(tmp_path, "other").ca_file} if configured == "another authority" else {}
    async with side.front(authority.server_context(server_pair)) as front:
        with pytest.raises(side.error, match=r"certificate is not trusted \(.*self.signed certificate") as caught:
            await side.talk(front.port, **other)
    assert (front.connections, front.heads) == (1, [])
    assert f"Set {side.prefix}ca_file" in caught.value.hint
    assert caught.value.exit_code is ExitCode.UNAVAILABLE


async def test_a_certificate_of_another_host_is_refused_after_one_try(side: Side, authority: Authority) -> None:
    """A trusted authority is not enough: the name has to be right as well."""
    elsewhere = authority.issue("elsewhere", "clickhouse.example", "10.0.0.1")
    async with side.front(authority.server_context(elsewhere)) as front:
        with pytest.raises(side.error, match=r"not trusted \(IP address mismatch.*127\.0\.0\.1") as caught:
            await side.talk(front.port, ca_file=authority.ca_file)
    assert (front.connections, front.heads) == (1, [])
    assert "The host in the address" in caught.value.hint


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("given", ["none", "of a stranger"])
async def test_a_server_that_demands_a_client_certificate_and_gets_no_good_one(  # noqa: PLR0917
    side: Side, authority: Authority, server_pair: Pair, tmp_path: Path, given: str, version: ssl.TLSVersion
) -> None:
    """Refused after one try with what the server said; the hint names the settings."""
    context = authority.server_context(server_pair, demand=True)
    context.minimum_version = context.maximum_version = version
    files: dict[str, Path] = {}
    if given == "of a stranger":
        pair = Authority(tmp_path, "stranger").issue("client")
        files = {"client_cert_file": pair.cert_file, "client_key_file": pair.key_file}
    async with side.front(context) as front:
        with pytest.raises(side.error, match="TLS failed: the server refused the connection") as caught:
            await side.talk(front.port, ca_file=authority.ca_file, **files)
    # aiohttp itself repeats a GET once when its connection ends; neither it nor we try again after that.
    assert front.connections <= (2 if side.error is ApiUnavailable else 1)
    assert front.heads == []
    assert f"{side.prefix}client_cert_file" in caught.value.hint


@pytest.mark.parametrize("in_one_file", [False, True])
async def test_a_client_certificate_that_the_server_knows(
    authority: Authority, server_pair: Pair, clickhouse_server: str, *, in_one_file: bool
) -> None:
    """Both sides take it, as two files or as one; ClickHouse's password still goes along when there is one."""
    pair = authority.issue("client")
    if in_one_file:
        pair.cert_file.write_bytes(pair.cert_file.read_bytes() + pair.key_file.read_bytes())
        files = {"client_cert_file": pair.cert_file}
    else:
        files = {"client_cert_file": pair.cert_file, "client_key_file": pair.key_file}
    context = authority.server_context(server_pair, demand=True)
    async with _api_front(context) as front:
        await _ask_api(front.port, ca_file=authority.ca_file, **files)
    assert f"Authorization: Bearer {KEY}".encode() in front.heads[0]
    named = {f"clickhouse_{name}": path for name, path in files.items()}
    with tls_front(clickhouse_server, context) as front:
        url = f"https://nobody:hunter2@127.0.0.1:{front.port}/"
        with pytest.raises(DatabaseError) as caught:
            await connect(database_settings(url, clickhouse_ca_file=authority.ca_file, **named))
    # The connection was accepted, and the real ClickHouse judged user and password.
    assert caught.value.code == 516
    assert b"authorization: basic" in front.heads[0].lower()
    assert b"certificate-auth" not in front.heads[0].lower()


async def test_without_a_password_the_certificate_is_what_the_user_logs_in_with(
    authority: Authority, server_pair: Pair, clickhouse_server: str
) -> None:
    """ClickHouse's own header for it is sent, and no password."""
    pair = authority.issue("client")
    context = authority.server_context(server_pair, demand=True)
    # Behind the front ClickHouse speaks no TLS and would not take the header.
    with tls_front(clickhouse_server, context, without=b"X-ClickHouse-SSL-Certificate-Auth: on\r\n") as front:
        await _ask_clickhouse(
            front.port,
            ca_file=authority.ca_file,
            client_cert_file=pair.cert_file,
            client_key_file=pair.key_file,
        )
    heads = b"\r\n".join(front.heads).lower()
    assert b"x-clickhouse-ssl-certificate-auth: on" in heads
    assert b"x-clickhouse-user: default" in heads
    assert b"authorization" not in heads


def test_a_client_certificate_needs_a_user_and_tls(authority: Authority) -> None:
    """Otherwise it would silently log nobody in."""
    pair = authority.issue("client")
    files: dict[str, Any] = {"clickhouse_client_cert_file": pair.cert_file, "clickhouse_client_key_file": pair.key_file}
    with pytest.raises(ConfigError, match="names no user") as caught:
        parse(database_settings("https://host/db", **files))
    assert caught.value.hint == "Expected https://user@host:8443/database."
    with pytest.raises(ConfigError, match="is set, and clickhouse_url is http://"):
        parse(database_settings("http://user@localhost/db", **files))


# ---- the files ----


@contextmanager
def _refused(message: str) -> Any:
    with pytest.raises(ConfigError, match=message) as caught:
        yield caught
    assert "PRIVATE" not in str(caught.value)
    # No library's error with more in it hangs on ours.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("prefix", ["", "clickhouse_"])
def test_files_that_cannot_work_are_told_by_name(authority: Authority, tmp_path: Path, prefix: str) -> None:
    """Missing, not PEM, of another certificate, only half of it, or locked: which file, and what is the matter."""
    pair, other = authority.issue("client"), authority.issue("other-client")
    missing, text = tmp_path / "missing.pem", tmp_path / "text.pem"
    text.write_text("no certificate")
    locked = authority.issue("locked", passphrase=b"hunter2")
    with _refused(f"{prefix}ca_file .*missing.pem: No such file or directory, expected PEM certificates"):
        client_context(missing, None, None, prefix=prefix)
    with _refused(f"{prefix}ca_file .*text.pem: unreadable, expected PEM certificates"):
        client_context(text, None, None, prefix=prefix)
    with _refused(f"{prefix}client_cert_file .*missing.pem: No such file or directory$"):
        client_context(None, missing, pair.key_file, prefix=prefix)
    with _refused(f"{prefix}client_key_file .*missing.pem: No such file or directory$"):
        client_context(None, pair.cert_file, missing, prefix=prefix)
    with _refused(f"{prefix}client_cert_file .* and {prefix}client_key_file .*: the private key is not the one of"):
        client_context(None, pair.cert_file, other.key_file, prefix=prefix)
    with _refused(f"{prefix}client_cert_file .*client.pem: expected a certificate and its private key"):
        client_context(None, pair.cert_file, None, prefix=prefix)
    with _refused(f"{prefix}client_cert_file .*text.pem and .*: expected a certificate and its private key"):
        client_context(None, text, pair.key_file, prefix=prefix)
    with _refused(f"private key of {prefix}client_cert_file .* is encrypted"):
        client_context(None, locked.cert_file, locked.key_file, prefix=prefix)
    with _refused(f"{prefix}client_key_file is set without {prefix}client_cert_file"):
        client_context(None, None, pair.key_file, prefix=prefix)


def test_both_sides_read_their_files_before_they_connect(tmp_path: Path) -> None:
    """A wrong path is a configuration error at the start, under the name of its setting."""
    missing = tmp_path / "missing.pem"
    with _refused("^client_cert_file"):
        client("https://host/v1", client_cert_file=missing)
    with _refused("^clickhouse_client_cert_file"):
        parse(database_settings("https://user@host/db", clickhouse_client_cert_file=missing))


def test_what_a_context_checks(authority: Authority) -> None:
    """Names and certificates, TLS 1.2 at least, and with a file its authorities alone."""
    context = client_context(authority.ca_file, None, None)
    assert [ca["subject"] for ca in context.get_ca_certs()] == [((("commonName", "authority"),),)]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert client_context(None, None, None).verify_mode is ssl.CERT_REQUIRED


def test_other_failures_are_no_refusal() -> None:
    """A reset, a server without TLS and an error without a reason may pass."""
    for error in (ConnectionResetError(), ssl.SSLError(1, "wrong version number"), ssl.SSLEOFError(8, "eof")):
        assert refusal(error) is None


# ---- plain text ----


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("localhost", True),
        ("128.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - nothing listens
        ("::", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("", False),
    ],
)
def test_what_never_leaves_the_machine(host: str, *, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("url", ["http://clickhouse:8123/db", "http://u@10.0.0.1/db", "http://u@[fd00::1]/db"])
def test_a_clickhouse_password_does_not_leave_the_machine_unencrypted(url: str, tmp_path: Path) -> None:
    """Whether it comes in the URL, as a setting or from a file: 78, before any connection, and not quoted."""
    file = tmp_path / "password"
    file.write_text("hunter2")
    with_password = url.replace("http://u@", "http://").replace("http://", "http://u:hunter2@")
    for settings in (
        database_settings(with_password),
        database_settings(url, clickhouse_password="hunter2"),
        database_settings(url, clickhouse_password_file=file),
    ):
        with pytest.raises(ConfigError, match="clickhouse_url: the password would be sent unencrypted to") as caught:
            parse(settings)
        assert caught.value.exit_code is ExitCode.CONFIG
        assert "allow_plaintext" in caught.value.hint
        assert "hunter2" not in str(caught.value)
        assert parse(settings.model_copy(update={"allow_plaintext": True})).password == "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        "http://clickhouse:8123/db",
        "http://u@10.0.0.1/db",
        "http://u:p@127.0.0.1/",
        "http://u:p@localhost/",
        "http://u:p@[::1]/",
    ],
)
def test_what_may_go_unencrypted(url: str) -> None:
    """No password, or this machine."""
    assert parse(database_settings(url)).interface == "http"


def test_a_proxy_of_the_environment_takes_loopback_off_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver sends everything through it that NO_PROXY does not name."""
    settings = database_settings("http://u:hunter2@127.0.0.1/db")
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    with pytest.raises(ConfigError, match=r"to 127\.0\.0\.1 through the proxy of the environment"):
        parse(settings)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert parse(settings).password == "hunter2"


@pytest.mark.parametrize(
    ("url", "proxy", "message"),
    [
        ("http://api.example/v1", None, "base_url of source 'openai': the admin key would be sent unencrypted to api"),
        ("http://10.0.0.1/v1", None, "the admin key would be sent unencrypted to 10.0.0.1"),
        ("http://127.0.0.1/v1", "http://proxy:3128", "the admin key would be sent unencrypted to proxy"),
        ("http://api.example/v1", "http://127.0.0.1:3128", "the admin key would be sent unencrypted to 127.0.0.1"),
        ("https://api.example/v1", "http://u:hunter2@proxy:3128", "proxy: the proxy's password would be sent"),
    ],
)
def test_a_key_does_not_leave_the_machine_unencrypted(url: str, proxy: str | None, message: str) -> None:
    """Neither to the API nor to a proxy on the way; nor does the proxy's own password."""
    with pytest.raises(ConfigError, match=message) as caught:
        client(url, proxy=proxy)
    assert caught.value.exit_code is ExitCode.CONFIG
    assert "allow_plaintext" in caught.value.hint
    assert "hunter2" not in str(caught.value)
    client(url, proxy=proxy, allow_plaintext=True)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("https://api.example/v1", "http://proxy:3128"),
        ("https://api.example/v1", "https://u:hunter2@proxy:3128"),
        ("http://localhost:1/v1", None),
        ("http://[::1]:1/v1", "http://u:hunter2@127.0.0.1:3128"),
    ],
)
def test_what_the_api_client_may_do_without_asking(url: str, proxy: str | None) -> None:
    """TLS to the API goes through a proxy unread, and this machine is this machine."""
    client(url, proxy=proxy)


def test_plain_text_is_off_by_default() -> None:
    assert Settings().allow_plaintext is False
