"""HTTP out of this process, to the API and to the receivers of alerts: one kind of session, and the way to a proxy."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from shipper import __version__
from shipper.errors import ConfigError
from shipper.tls import is_loopback

_CONNECT_SECONDS = 15.0


def open_session(
    trusted: ssl.SSLContext | bool,  # noqa: FBT001 - aiohttp's own words: True is the system's authorities
    seconds: float,
    *,
    headers: Mapping[str, str] | None = None,
    connections: int = 100,
) -> aiohttp.ClientSession:
    """A session without cookies whose requests take at most `seconds` each; of `connections` 0 is any number."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trusted, limit=connections),
        timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=min(_CONNECT_SECONDS, seconds)),
        headers={
            "User-Agent": f"openai-audit-shipper/{__version__}",
            # Without this line the list depends on which optional packages happen to be installed.
            "Accept-Encoding": "gzip, deflate",
            **(headers or {}),
        },
        cookie_jar=aiohttp.DummyCookieJar(),
        # aiohttp's own reading of the environment also takes passwords from ~/.netrc: see `environment_proxy` instead.
        trust_env=False,
    )


def goes_direct(target: URL) -> bool:
    """Whether the environment's proxy is not for this target: this machine, and hosts that NO_PROXY names."""
    host = target.host or ""
    return is_loopback(host) or bool(proxy_bypass(host))


def environment_proxy(target: URL) -> str | None:
    """What HTTPS_PROXY, or HTTP_PROXY, says for a target of this scheme."""
    return getproxies().get(target.scheme)


def proxy_url(text: str | None) -> URL | None:
    """The proxy that a setting or the environment names; None for none. Raises ConfigError for what is no address."""
    if not text:
        return None
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host:
        # Not quoted: it may hold a password.
        raise ConfigError("proxy: expected http://host:port", hint="The setting proxy, or HTTPS_PROXY.")
    return url
