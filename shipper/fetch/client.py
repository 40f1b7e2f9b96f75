"""The HTTP client of the Admin API: authentication, retries and pace. The only place that sends the key."""

from __future__ import annotations

import asyncio
import random as randomness
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt
from yarl import URL

from shipper.config import Settings, SourceSettings
from shipper.errors import ApiProtocolError, ConfigError
from shipper.fetch.faults import Answer, Fault, answer_fault, backoff, body_fault, connection_fault
from shipper.fetch.ratelimit import RateLimiter
from shipper.fetch.scan import IncompleteJSONError
from shipper.outbound import environment_proxy, goes_direct, open_session, proxy_url
from shipper.telemetry import logger
from shipper.tls import client_context, is_loopback, refuse_plaintext

MAX_BODY = 256 * 1024 * 1024
_MAX_ERROR_BODY = 64 * 1024

# The operating system's own errors may come bare: TLS that breaks in the middle of a body.
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError)

T = TypeVar("T")


class AdminClient:
    """Talks to the API for one source. Use it with `async with`, from one event loop.

    The key is read once, here: make a new client to pick up a changed key file. `requests` counts what was sent,
    `retries` how many of those were second and later tries. Raises ConfigError for settings that cannot work.
    """

    def __init__(  # noqa: PLR0913 - time and chance are arguments
        self,
        source: SourceSettings,
        settings: Settings,
        *,
        limiter: RateLimiter,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self.requests = 0
        self.retries = 0
        self._base_url = _base_url(source)
        self._key = source.read_admin_key()
        self._organization = _organization(source)
        self._proxy = _proxy(settings.proxy, URL(self._base_url))
        if not settings.allow_plaintext:
            _refuse_plaintext(source.id, URL(self._base_url), self._proxy)
        self._ssl = _ssl(settings)
        self._timeout = settings.request_timeout.total_seconds()
        self._tries = settings.retries + 1
        self._ceiling = settings.retry_ceiling.total_seconds()
        self._limiter = limiter
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # The callers' tasks and the limiter bound what is under way; a full pool would eat into the timeout.
        self._session = open_session(self._ssl, self._timeout, headers={"Accept": "application/json"}, connections=0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, params: Sequence[tuple[str, str]] = (), *, parse: Callable[[bytes], T]) -> T:
        """GET `path` (relative to the base URL) and return what `parse` makes of the whole body of a 200.

        `parse` raises IncompleteJSONError for a body that is cut: it is asked for again, as after a reset connection.
        Retries are used up inside; what is raised is an ApiError: ApiUnavailable, ApiRefused, ApiRejected or
        ApiProtocolError.
        """
        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=stop_after_attempt(self._tries),
            wait=self._pause,
            retry=retry_if_result(lambda outcome: isinstance(outcome, Fault) and outcome.retry),
            before_sleep=self._note,
            # A fault is a value until here, so that no traceback of the driver hangs on the error.
            retry_error_callback=_outcome,
        )
        outcome: T | Fault = await retrying(self._attempt, path, params, parse)
        if isinstance(outcome, Fault):
            raise outcome.error(tries=retrying.statistics.get("attempt_number", 1))
        return outcome

    async def _attempt(self, path: str, params: Sequence[tuple[str, str]], parse: Callable[[bytes], T]) -> T | Fault:
        if self._session is None:
            raise RuntimeError("the client is used outside of its `async with`")
        answer = Answer(f"GET {path}")
        granted = await self._limiter.acquire()
        self.requests += 1
        try:
            async with self._session.get(
                URL(f"{self._base_url}/{path.lstrip('/')}"),
                params=params,
                headers=self._authentication(),
                proxy=self._proxy,
                allow_redirects=False,
            ) as response:
                answer = answer._replace(status=response.status, headers=response.headers)
                body = await _read(response, MAX_BODY if response.status == 200 else _MAX_ERROR_BODY)
                answer = answer._replace(body=body)
        except _NO_ANSWER as error:
            # An error's status says what to do, even when its body is cut.
            if answer.status in (None, 200):
                return connection_fault(answer, error, key=self._key.get_secret_value())
        return self._judged(answer, granted, parse)

    def _judged(self, answer: Answer, granted: float, parse: Callable[[bytes], T]) -> T | Fault:
        key = self._key.get_secret_value()
        if answer.status != 200:
            fault = answer_fault(answer, now=self._clock(), key=key)
            if answer.status == 429:
                self._limiter.throttled(granted, min(fault.pause or 0.0, self._ceiling))
            return fault
        self._limiter.succeeded()
        if len(answer.body) > MAX_BODY:
            return body_fault(answer, ApiProtocolError(f"the body is longer than {MAX_BODY} bytes"), key=key)
        try:
            return parse(answer.body)
        except (IncompleteJSONError, ApiProtocolError) as error:
            return body_fault(answer, error, key=key)

    def _authentication(self) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self._key.get_secret_value()}"}
        if self._organization:
            headers["OpenAI-Organization"] = self._organization
        return headers

    def _pause(self, state: RetryCallState) -> float:
        """What the server asked for, at most the ceiling; else backoff."""
        fault = _outcome(state)
        if fault.pause is not None:
            return min(float(fault.pause), self._ceiling)
        return backoff(state.attempt_number, self._ceiling, self._random)

    def _note(self, state: RetryCallState) -> None:
        self.retries += 1
        fault = _outcome(state)
        logger().info(
            "request failed, trying again",
            reason=fault.message,
            status=fault.status,
            request_id=fault.request_id,
            attempt=state.attempt_number,
            seconds=round(state.upcoming_sleep, 3),
        )


def _outcome(state: RetryCallState) -> Any:
    return state.outcome.result() if state.outcome is not None else None


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, decompressed. Reading ends once it is longer than `limit`."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            break
    return b"".join(chunks)


def _base_url(source: SourceSettings) -> str:
    try:
        url = URL(source.base_url)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or url.query_string or url.fragment:
        raise ConfigError(f"base_url of source {source.id!r}: expected https://host/v1")
    if url.user is not None or url.password is not None:
        raise ConfigError(f"base_url of source {source.id!r}: a user or a password does not belong there")
    return source.base_url.strip().rstrip("/")


def _organization(source: SourceSettings) -> str:
    organization = (source.organization or "").strip()
    if not organization.isascii() or any(c.isspace() or not c.isprintable() for c in organization):
        raise ConfigError(f"organization of source {source.id!r}: expected an id such as org-…")
    return organization


def _proxy(configured: str | None, target: URL) -> URL | None:
    """The configured proxy, else the environment's for this address (HTTPS_PROXY, NO_PROXY); never for loopback."""
    return proxy_url(configured or (None if goes_direct(target) else environment_proxy(target)))


def _refuse_plaintext(source_id: str, target: URL, proxy: URL | None) -> None:
    """Raise ConfigError when the key, or the proxy's password, would leave this machine unencrypted."""
    first_stop = (proxy or target).host or ""
    if target.scheme == "http" and not (is_loopback(target.host or "") and is_loopback(first_stop)):
        refuse_plaintext("the admin key", first_stop, setting=f"base_url of source {source_id!r}")
    if proxy is not None and proxy.scheme == "http" and proxy.password and not is_loopback(first_stop):
        refuse_plaintext("the proxy's password", first_stop, setting="proxy")


def _ssl(settings: Settings) -> ssl.SSLContext | bool:
    files = (settings.ca_file, settings.client_cert_file, settings.client_key_file)
    return client_context(*files) if any(files) else True
