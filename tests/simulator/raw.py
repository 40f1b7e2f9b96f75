"""A client without any cleverness: one request, one answer, as it came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import orjson

from shipper.simulator import Simulator

Params = Sequence[tuple[str, str]]


class Got:
    """An answer, with its body as bytes and as JSON."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.json["data"]]


async def get(
    client: aiohttp.ClientSession,
    simulator: Simulator,
    path: str = "/organization/audit_logs",
    params: Params = (),
    headers: Mapping[str, str] | None = None,
) -> Got:
    sent = {"Authorization": f"Bearer {simulator.admin_key}", **(headers or {})}
    async with client.get(simulator.base_url + path, params=list(params), headers=sent) as response:
        return Got(response.status, response.headers, await response.read())


async def walk(client: aiohttp.ClientSession, simulator: Simulator, params: Params = ()) -> list[str]:
    """The ids of every page, following `last_id` to the end."""
    ids: list[str] = []
    cursor: Params = ()
    while True:
        page = await get(client, simulator, params=[*params, *cursor])
        ids += page.ids
        if not page.json["has_more"]:
            return ids
        cursor = [("after", page.json["last_id"])]
