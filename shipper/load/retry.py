"""Retries, once for every kind of database: full jitter, a ceiling, and only what may be repeated without harm."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from shipper.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from shipper.load.clickhouse import Database

Sleep = Callable[[float], Awaitable[None]]
_T = TypeVar("_T")

_FIRST_PAUSE = 0.5


def retrying(retries: int, ceiling: float, sleep: Sleep = asyncio.sleep) -> AsyncRetrying:
    """Call again on DatabaseUnavailable, `retries` times at most, each pause random up to a doubling bound."""
    return AsyncRetrying(
        stop=stop_after_attempt(retries + 1),
        wait=wait_random_exponential(multiplier=_FIRST_PAUSE, max=ceiling),
        retry=retry_if_exception_type(DatabaseUnavailable),
        sleep=sleep,
        reraise=True,
    )


async def repeat(policy: AsyncRetrying, call: Callable[[], Awaitable[_T]]) -> _T:
    """Call under the policy. The policy is copied: it counts attempts, and calls run at the same time."""

    async def attempt() -> _T:
        return await call()

    return await policy.copy()(attempt)


class RetryingDatabase:
    """A database whose reads and inserts outlive a transient failure.

    An insert is repeated with the same token, so that an insert whose answer was lost is in the table once. Commands
    and a person's own queries are passed through: the first may not be repeatable, and the second have a person who
    waits.
    """

    def __init__(self, database: Database, policy: AsyncRetrying, check: Callable[[], None] | None = None) -> None:
        self._database = database
        self._policy = policy
        self._check = check
        self.address = database.address

    def guarded(self, check: Callable[[], None]) -> RetryingDatabase:
        """The same database, whose inserts and commands call `check` before every attempt: what it raises ends them."""
        return RetryingDatabase(self._database, self._policy, check)

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return await repeat(self._policy, lambda: self._database.query(sql, parameters))

    async def ask(
        self, sql: str, parameters: Mapping[str, Any], *, seconds: float, memory: int
    ) -> list[tuple[Any, ...]]:
        return await self._database.ask(sql, parameters, seconds=seconds, memory=memory)

    async def query_table(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        return await self._database.query_table(sql)

    async def query_json(self, sql: str) -> bytes:
        return await self._database.query_json(sql)

    async def command(self, sql: str, parameters: Mapping[str, Any] | None = None) -> None:
        if self._check is not None:
            self._check()
        await self._database.command(sql, parameters)

    async def insert(self, table: str, columns: Sequence[str], body: Sequence[bytes], *, token: str) -> None:
        async def attempt() -> None:
            if self._check is not None:
                self._check()
            await self._database.insert(table, columns, body, token=token)

        await repeat(self._policy, attempt)

    async def present(self, sql: str, parameters: Mapping[str, Any] | None, candidates: AbstractSet[str]) -> set[str]:
        return await repeat(self._policy, lambda: self._database.present(sql, parameters, candidates))

    async def close(self) -> None:
        await self._database.close()
