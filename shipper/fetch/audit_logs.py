"""Reads the audit log: one lane, one window, page by page."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from shipper.fetch.client import AdminClient
from shipper.fetch.paging import Pager, parse_page
from shipper.model import Lane, Page, Window

PATH = "organization/audit_logs"

# The largest page the API gives.
PAGE_LIMIT = 100

# What to ask where no event ever comes: the API answers with an empty list then, not with an error.
SWITCHED_ON = "Is audit logging on? Organization settings > Data controls > Data retention."

_LANE_PARAMETERS: dict[Lane, tuple[tuple[str, str], ...]] = {
    Lane.ORGANIZATION: (),
    Lane.TENANT: (("tenant_only", "true"),),
}


async def drain(client: AdminClient, lane: Lane, window: Window, *, limit: int = PAGE_LIMIT) -> AsyncGenerator[Page]:
    """Every page of the window, as the API orders them (newest first so far; nothing here relies on it).

    All events of a page are given on, also those a server returns from outside of the window. The window has been read
    whole only when the iteration ends by itself. Raises ApiError; pages already given stay good, and reading the window
    again gives them again.
    """
    if window.seconds == 0:
        return
    query = (
        ("effective_at[gte]", str(window.start)),
        ("effective_at[lt]", str(window.end)),
        *_LANE_PARAMETERS[lane],
        ("limit", str(limit)),
    )
    pager = Pager()
    while not pager.done:
        cursor = () if pager.after is None else (("after", pager.after),)
        page = await client.get(PATH, (*query, *cursor), parse=parse_page)
        yield page
        # After the page is given: events that came are kept even when the page breaks the contract.
        pager.receive(page)


async def probe(client: AdminClient, lane: Lane) -> Page:
    """The newest event of the lane, if there is one: shows that key, scope and network work. Raises ApiError."""
    return await client.get(PATH, (*_LANE_PARAMETERS[lane], ("limit", "1")), parse=parse_page)
