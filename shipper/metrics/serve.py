"""GET /metrics of `watch`."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from shipper.config import host_and_port
from shipper.errors import ConfigError

# The metrics in the format that an Accept header asks for, and its content type.
Text = Callable[[str], tuple[bytes, str]]


@asynccontextmanager
async def serve(text: Text, address: str) -> AsyncGenerator[str]:
    """Answer at `address` while the body runs; gives the URL. Raises ConfigError when it cannot listen there."""

    async def answer(request: web.Request) -> web.Response:
        body, content_type = text(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    application = web.Application()
    application.router.add_get("/metrics", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, *host_and_port(address)).start()
        except OSError as error:
            reason = "it is in use" if error.errno == errno.EADDRINUSE else (error.strerror or "the system refuses")
            raise ConfigError(
                f"metrics_listen {address}: cannot listen there: {reason}",
                hint="Name an address of this machine and a port that is free, or leave metrics_listen out.",
            ) from None
        yield f"http://{address.rpartition(':')[0]}:{runner.addresses[0][1]}/metrics"
    finally:
        await runner.cleanup()
