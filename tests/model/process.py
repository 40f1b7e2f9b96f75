"""Processes of the model: each runs the real code, and every step that leaves it waits for the model's word."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar
from uuid import UUID

from shipper.errors import ApiUnavailable, DatabaseUnavailable, ShipperError
from shipper.fetch.sizing import Sizes, Work
from shipper.load.clickhouse import Database
from shipper.load.lease import Lease, Terms
from shipper.load.retry import RetryingDatabase, Sleep, retrying
from shipper.load.tables import LOGS
from shipper.model import Lane, RunID, Source, Window
from shipper.run import Run
from tests.model.api import Api
from tests.model.store import Store
from tests.model.time import Loop, Time

T = TypeVar("T")

# The process whose code is running: the client that `Run` makes by itself finds its process here.
CURRENT: ContextVar[Process] = ContextVar("CURRENT")


@dataclass(eq=False)
class Operation:
    """A step of a process that has left it and is not answered yet. `effect` is what it does out there."""

    process: Process
    what: str
    effect: Callable[[], Any]
    error: Callable[[], ShipperError]
    answer: asyncio.Future[Any]
    tear: Callable[[], None] | None = None

    @property
    def writes(self) -> bool:
        return self.what.startswith("insert")

    def go(self) -> None:
        """It happens, and the process learns it."""
        try:
            result = self.effect()
        except ShipperError as error:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(result)

    def fail(self, how: str) -> None:
        """The process sees an error: it `is refused`, or it happens all the same, or the first part of it does."""
        error = self.error()
        try:
            if how == "loses the answer" or (how == "happens in part" and self.tear is None):
                self.effect()
            elif how == "happens in part" and self.tear is not None:
                self.tear()
        except ShipperError as refusal:
            error = refusal
        self.answer.set_exception(error)


@dataclass(eq=False)
class World:
    """What all processes share. `orphans` are writes that were under way when their process gave up or died."""

    clock: Time
    loop: Loop
    api: Api
    store: Store
    leased: bool
    sizes: Sizes
    pending: list[Operation] = field(default_factory=list)
    ids: int = 0
    orphans: list[Operation] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Begun:
    """When the first page of a window was asked for, on the true clock and on the host's."""

    true: int
    host: int


@dataclass(eq=False)
class Process:
    """One `shipper run` or `shipper backfill`.

    `started` is on the true clock, `earliest` and `latest` are the first and the last of what it read of its host's.
    `covered_from` is where the ledger of each lane began when it started.
    """

    world: World
    started: int
    covered_from: dict[Lane, int]
    command: str
    earliest: int = 2**62
    latest: int = 0
    dead: bool = False
    begun: dict[tuple[Lane, Window], Begun] = field(default_factory=dict)
    drained: set[tuple[Lane, Window]] = field(default_factory=set)
    run: Run = field(init=False)
    task: asyncio.Task[None] = field(init=False)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        context = copy_context()
        context.run(CURRENT.set, self)
        self.task = self.world.loop.create_task(work, context=context)

    def clock(self) -> float:
        now = self.world.clock.host()
        self.earliest, self.latest = min(self.earliest, int(now)), max(self.latest, int(now))
        return now

    @property
    def pending(self) -> list[Operation]:
        return [operation for operation in self.world.pending if operation.process is self]

    async def perform(
        self,
        what: str,
        effect: Callable[[], T],
        error: Callable[[], ShipperError],
        tear: Callable[[], None] | None = None,
    ) -> T:
        """Wait for the model's word on this step. A dead process takes no further step."""
        if self.dead:
            raise asyncio.CancelledError
        operation = Operation(self, what, effect, error, asyncio.get_running_loop().create_future(), tear)
        self.world.pending.append(operation)
        try:
            result: T = await operation.answer
        except asyncio.CancelledError:
            if operation.writes:
                self.world.orphans.append(operation)
            raise
        finally:
            self.world.pending.remove(operation)
        return result

    def end(self) -> None:
        """End it where it is, whatever it still does. Clean-up code runs, for the loop's sake, and reaches nothing."""
        self.dead = True
        for task in self.tasks:
            task.cancel()
        self.world.loop.settle()
        assert all(task.done() for task in self.tasks)
        assert not self.pending


def new_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T] | Generator[Any, None, T], **named: Any
) -> asyncio.Task[T]:
    """A task that its process knows: what is left of them when the process ends is gone with it."""
    task: asyncio.Task[T] = asyncio.Task(work, loop=loop, **named)
    context: Context = named.get("context") or copy_context()
    if CURRENT in context:
        context[CURRENT].tasks.append(task)
    return task


class Client:
    """Stands for `shipper.fetch.client.AdminClient`; what is raised has used up its retries."""

    # What a window's start is asked for with. A bug that some connectors have can be put in here.
    first_second = "effective_at[gte]"

    def __init__(self, *_: object, **__: object) -> None:
        self.retries = 0
        self._process = CURRENT.get()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def get(self, path: str, params: Sequence[tuple[str, str]] = (), *, parse: Callable[[bytes], T]) -> T:
        assert path == "organization/audit_logs"
        process, world = self._process, self._process.world
        asked = dict(params)
        window = Window(int(asked["effective_at[gte]"]), int(asked["effective_at[lt]"]))
        key = (Lane.TENANT if "tenant_only" in asked else Lane.ORGANIZATION, window)
        if "after" not in asked:
            process.begun[key] = Begun(world.clock.true, int(world.clock.host()))
        sent = [(self.first_second if name == "effective_at[gte]" else name, value) for name, value in params]
        body = await process.perform("page", lambda: world.api.page(sent), _no_api)
        if b'"has_more":false' in body:
            process.drained.add(key)
        return parse(body)


class _Gated:
    """The store as a process sees it: see `shipper.load.clickhouse.Database`."""

    address = Store.address

    def __init__(self, process: Process) -> None:
        self._process = process
        self._store = process.world.store

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return await self._process.perform("query", lambda: self._store.query(sql, parameters), _no_database)

    async def ask(
        self, sql: str, parameters: Mapping[str, Any], *, seconds: float, memory: int
    ) -> list[tuple[Any, ...]]:
        raise NotImplementedError

    async def query_table(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        raise NotImplementedError

    async def query_json(self, sql: str) -> bytes:
        raise NotImplementedError

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        raise NotImplementedError

    async def insert(self, table: str, columns: Sequence[str], body: Sequence[bytes], *, token: str) -> None:
        # What was sent stays as it is, whatever becomes of the process's own list.
        sent = [*body]
        tear = (lambda: self._store.insert(table, columns, sent, token, torn=True)) if table == LOGS.name else None
        await self._process.perform(
            f"insert {table}", lambda: self._store.insert(table, columns, sent, token), _no_database, tear
        )

    async def present(self, sql: str, parameters: Mapping[str, Any] | None, candidates: AbstractSet[str]) -> set[str]:
        asked = frozenset(candidates)
        return await self._process.perform("present", lambda: self._store.present(sql, parameters, asked), _no_database)

    async def close(self) -> None:
        return None


def lease(database: Database, source: Source, run_id: RunID, terms: Terms) -> Lease:
    """Stands for `shipper.load.lease.Lease`: the real one on the model's time, or one that keeps nobody away."""
    world = CURRENT.get().world
    kind = Lease if world.leased else _KeepsNobodyAway
    return kind(database, source, run_id, terms, world.loop.time)


def work(planned: Iterable[tuple[Lane, Window]], feeds: int, _: Sizes) -> Work:
    """Stands for `shipper.fetch.sizing.Work`: the real one, with the model's sizes."""
    return Work(planned, feeds, CURRENT.get().world.sizes)


def next_id() -> UUID:
    """Stands for `uuid4`: in no order, and the same in every repetition."""
    world = CURRENT.get().world
    world.ids += 1
    return UUID(bytes=hashlib.sha256(b"%d" % world.ids).digest()[:16])


class _KeepsNobodyAway(Lease):
    """Runs overlap as freely as if a replica that lags behind had shown each of them that it was alone."""

    @property
    def left(self) -> float:
        return 1.0

    @asynccontextmanager
    async def held(self, sleep: Sleep = asyncio.sleep) -> AsyncGenerator[None]:
        yield


def database_of(process: Process) -> RetryingDatabase:
    """The real retries, one each and without a pause, over the gate."""
    return RetryingDatabase(_Gated(process), retrying(1, 0, sleep=_at_once))


def _no_api() -> ShipperError:
    return ApiUnavailable("the model lets this request fail")


def _no_database() -> ShipperError:
    return DatabaseUnavailable("the model lets this call fail")


async def _at_once(_: float) -> None:
    return None
