"""A simulated OpenAI organization behind the real Admin API's paths, for the demo, the tests and `shipper simulate`."""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from random import Random
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from shipper.errors import UsageError
from shipper.model import Lane
from shipper.simulator.catalog import lanes
from shipper.simulator.directory import Project
from shipper.simulator.events import MISSING, Actor, Event, compose, event, serialise
from shipper.simulator.log import EventLog
from shipper.simulator.misbehave import Misbehaviour
from shipper.simulator.organization import Organization
from shipper.simulator.server import RESTRICTED_KEY, Api, application

__all__ = ["MISSING", "RESTRICTED_KEY", "Misbehaviour", "Organization", "Simulator"]


class Simulator:
    """Serves an organization on a port for as long as the context is open.

    `port` 0 takes a free one. `clock` gives Unix seconds and decides what is late and what is over the rate. An
    address that other machines reach is refused with UsageError unless `public`; so is a port in use.
    """

    def __init__(  # noqa: PLR0913 - a server has that many settings
        self,
        organization: Organization,
        *,
        admin_key: str = "sk-admin-simulated",
        misbehaviour: Misbehaviour = Misbehaviour(),  # noqa: B008 - frozen
        host: str = "127.0.0.1",
        port: int = 0,
        public: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not public and not _is_loopback(host):
            raise UsageError(
                f"the simulator listens on this machine only, got host {host!r}",
                hint="Use 127.0.0.1, or allow a public address explicitly.",
            )
        self.organization = organization
        self._host = host
        self._port = port
        self._log = EventLog(organization.events)
        self._api = Api(organization, self._log, admin_key, misbehaviour, clock)
        self._runner: web.AppRunner | None = None
        self._added = Random(f"{organization.seed}/added")  # noqa: S311 - seeded on purpose

    @property
    def admin_key(self) -> str:
        return self._api.admin_key

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL has to be: `http://127.0.0.1:PORT/v1`. The port is known once the context is open."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/v1"

    @property
    def requests(self) -> int:
        """How many requests have come, refused ones too."""
        return self._api.requests

    @property
    def log(self) -> deque[tuple[str, str]]:
        """The path and the raw query string of the newest requests, oldest first."""
        return self._api.asked

    def events(self, lane: Lane | str = Lane.ORGANIZATION) -> list[tuple[str, int, bytes]]:
        """The truth: id, effective_at and bytes of every event of the lane, newest first, visible yet or not."""
        return [(one.id, one.effective_at, one.raw) for one in self._log.newest_first(Lane(lane))]

    def add_event(
        self,
        event_type: str,
        *,
        effective_at: int | None = None,
        actor: Actor = MISSING,
        project: Project | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> str:
        """Let a new event appear in the lane of its type (unknown types: the organization lane). Returns its id."""
        at = int(self._api.clock()) if effective_at is None else effective_at
        body = compose(self._added, event_type, at, actor=actor, project=project, payload=payload)
        lane = lanes().get(event_type, Lane.ORGANIZATION)
        made = event(body, lane, serialise(self._added, body))
        self._log.add(made)
        return made.id

    def add_raw(self, raw: bytes, *, id: str, effective_at: int, lane: Lane = Lane.ORGANIZATION) -> None:  # noqa: A002
        """Let these very bytes appear in the lane's pages, whatever they are. `id` and `effective_at` place them."""
        self._log.add(Event(id=id, type="", effective_at=effective_at, lane=lane, raw=raw))

    async def __aenter__(self) -> Self:
        runner = web.AppRunner(application(self._api), access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            reason = "it is in use" if error.errno == errno.EADDRINUSE else (error.strerror or "the system refuses")
            raise UsageError(
                f"cannot listen on {self._host} port {self._port}: {reason}",
                hint="Choose another port, or 0 for a free one.",
            ) from error
        self._runner = runner
        self._port = runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
