"""Sends requests to the receivers of alerts: one session, timeouts, the proxy, and retries inside one delivery."""

from __future__ import annotations

import asyncio
import random as randomness
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import aiohttp
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt
from yarl import URL

from shipper.config import Settings
from shipper.detect.alerts.answers import STOPPED, Answer, Promise, Reply, Secrets, answered, unanswered
from shipper.errors import ConfigError, Interrupted
from shipper.fetch.faults import backoff
from shipper.outbound import environment_proxy, goes_direct, open_session, proxy_url
from shipper.stopping import until_stopped
from shipper.telemetry import logger
from shipper.tls import client_context, is_loopback, refuse_plaintext

_LONGEST_ANSWER = 16 * 1024

# How long a receiver has to answer once the process is asked to stop: half of what Kubernetes grants before it kills.
_GRACE = 15.0

# The operating system's own errors may come bare: TLS that breaks in the middle of a body.
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class Request:
    """One POST. All of it may be secret: a URL of Slack's, a key in the body."""

    url: URL = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where a route leads, checked."""

    route: str
    url: URL = field(repr=False)
    key: str = field(repr=False)
    promise: Promise
    secrets: Secrets
    proxy: URL | None = field(repr=False)


class Sender:
    """Use it with `async with`. `retries` are the second and later tries of one request; `stop` ends them early."""

    def __init__(  # noqa: PLR0913 - time and chance are arguments
        self,
        settings: Settings,
        *,
        retries: int,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = randomness.random,
        stop: asyncio.Event | None = None,
    ) -> None:
        self._timeout = settings.request_timeout.total_seconds()
        self._ceiling = settings.retry_ceiling.total_seconds()
        self._retries = retries
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._stop = stop or asyncio.Event()
        self._ssl = _trust(settings)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = open_session(self._ssl, self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def send(self, receiver: Receiver, build: Callable[[float], Request], *, retries: int | None = None) -> Reply:
        """Send what `build` makes at the moment of each try, until it is accepted or refused, or no try is left."""
        last: Reply | None = None

        async def attempt() -> Reply:
            nonlocal last
            if last is not None and self._stop.is_set():
                return replace(last, retry=False)
            last = await self._attempt(receiver, build)
            return last

        retrying = AsyncRetrying(
            sleep=self._pause,
            stop=stop_after_attempt((self._retries if retries is None else retries) + 1),
            wait=self._wait,
            retry=retry_if_result(lambda reply: reply.retry),
            before_sleep=lambda state: self._note(receiver.route, state),
            # A failure is a value, so that no traceback of the driver hangs on an error.
            retry_error_callback=_reply,
        )
        return await retrying(attempt)

    async def _attempt(self, receiver: Receiver, build: Callable[[float], Request]) -> Reply:
        try:
            answer = await until_stopped(self._post(receiver, build(self._clock())), self._stop, grace=_GRACE)
        except Interrupted:
            return STOPPED
        except _NO_ANSWER as error:
            return unanswered(error)
        return answered(answer, receiver.promise, receiver.secrets, self._clock())

    async def _post(self, receiver: Receiver, request: Request) -> Answer:
        if self._session is None:
            raise RuntimeError("the sender is used outside of its `async with`")
        async with self._session.post(
            request.url,
            data=request.body,
            headers={"Content-Type": "application/json", **request.headers},
            proxy=receiver.proxy,
            allow_redirects=False,
        ) as response:
            return Answer(response.status, response.headers, await _beginning(response))

    async def _pause(self, seconds: float) -> None:
        """Sleep, but no longer than until the process is asked to stop."""
        tasks = (asyncio.ensure_future(self._sleep(seconds)), asyncio.create_task(self._stop.wait()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def _wait(self, state: RetryCallState) -> float:
        """What the receiver asked for, at most the ceiling; else backoff."""
        pause = _reply(state).pause
        if pause is not None:
            return min(pause, self._ceiling)
        return backoff(state.attempt_number, self._ceiling, self._random)

    def _note(self, route: str, state: RetryCallState) -> None:
        logger().info(
            "alert not accepted, trying again",
            route=route,
            reason=_reply(state).message,
            attempt=state.attempt_number,
            seconds=round(state.upcoming_sleep, 3),
        )


def _reply(state: RetryCallState) -> Reply:
    if state.outcome is None:
        raise RuntimeError("a try without an outcome")
    reply: Reply = state.outcome.result()
    return reply


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """As much of the body as a message needs. An error's status says what to do, even when its body is cut."""
    body = b""
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) >= _LONGEST_ANSWER:
                break
    except (aiohttp.ClientError, OSError):
        if response.status < 300:
            raise
    return body[:_LONGEST_ANSWER]


def checked(url: str, settings: Settings, *, route: str) -> URL:
    """The URL of a route. Raises ConfigError, without the URL, when it is none or would be reached unencrypted."""
    try:
        target = URL(url)
    except ValueError:
        target = URL()
    if target.scheme not in {"http", "https"} or not target.host:
        raise ConfigError(f"alert route {route!r}: url: expected https://host/…")
    if target.scheme == "http" and not is_loopback(target.host) and not settings.allow_plaintext:
        refuse_plaintext("its alerts", target.host, setting=f"alert route {route!r}")
    return target


def proxy_for(target: URL, settings: Settings) -> URL | None:
    """The setting proxy, else the environment's; none for this machine and for hosts that NO_PROXY names."""
    if goes_direct(target):
        return None
    url = proxy_url(settings.proxy or environment_proxy(target))
    if url is None:
        return None
    host = url.host or ""
    if url.scheme == "http" and url.password and not is_loopback(host) and not settings.allow_plaintext:
        refuse_plaintext("the proxy's password", host, setting="proxy")
    return url


def _trust(settings: Settings) -> ssl.SSLContext:
    """The system's authorities, and those of ca_file: a proxy that opens TLS opens that of alerts as well."""
    context = client_context(None, None, None)
    if settings.ca_file is not None:
        try:
            context.load_verify_locations(settings.ca_file)
        except OSError as error:  # ssl.SSLError is one
            what = "unreadable" if isinstance(error, ssl.SSLError) else error.strerror or "unreadable"
            raise ConfigError(f"ca_file {settings.ca_file}: {what}, expected PEM certificates") from None
    return context
