"""`watch`: passes one after the other, what ends them, and the detections that never do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from shipper.errors import (
    AccountingError,
    ApiUnavailable,
    DatabaseRefused,
    DatabaseUnavailable,
    ExitCode,
    Interrupted,
    LeaseHeld,
    SchemaError,
    ShipperError,
)
from shipper.model import Lane
from shipper.run import Run, open_run
from shipper.simulator import RESTRICTED_KEY, Organization, Simulator
from shipper.watch import watch
from tests.organizations import NOW, ship_settings, source_settings


@pytest.fixture(scope="module")
def organization() -> Organization:
    return Organization.build(seed=7, now=NOW, days=2, events_per_day=12)


async def test_it_goes_on_after_an_outage_and_ends_when_asked() -> None:
    """A transient failure is logged and tried again; `stop` ends it with 0."""
    stop = asyncio.Event()
    passes = 0

    async def one_pass() -> Run:
        nonlocal passes
        passes += 1
        if passes == 3:
            stop.set()
        raise DatabaseUnavailable("out of reach")

    with capture_logs() as logs:
        assert await watch(one_pass, 0, stop) is ExitCode.OK
    assert passes == 3
    assert [entry["error"] for entry in logs] == ["out of reach"] * 3


@pytest.mark.parametrize("status", [401, 403])
async def test_it_ends_when_every_source_is_refused(embedded_url: str, organization: Organization, status: int) -> None:
    """Also when the tenant lane was refused first, as with a key that lacks the scope."""
    async with Simulator(organization, clock=lambda: NOW) as simulator:
        key = RESTRICTED_KEY if status == 403 else "sk-admin-wrong"
        settings = ship_settings(embedded_url, lookback="1d")
        settings = settings.model_copy(update={"sources": (source_settings(simulator, admin_key=SecretStr(key)),)})

        async def one_pass() -> Run:
            async with open_run(settings, "watch", asyncio.Event()) as run:
                await run.read_sources()
                return run

        assert await watch(one_pass, 0, asyncio.Event()) is ExitCode.NOPERM


async def test_it_ends_on_what_will_not_pass() -> None:
    async def one_pass() -> Run:
        raise SchemaError("another schema")

    with pytest.raises(ShipperError, match="another schema"):
        await watch(one_pass, 0, asyncio.Event())


@pytest.fixture
async def ended(embedded_url: str) -> AsyncIterator[Run]:
    """A pass that came to its end, with nothing to read."""
    async with open_run(ship_settings(embedded_url), "watch", asyncio.Event()) as run:
        yield run


async def test_the_detections_look_after_each_pass_and_whatever_they_meet_ends_nothing(
    ended: Run,
) -> None:
    """Another process that detects, an outage, a missing right, a bug: told in the log, and the next pass comes."""
    stop = asyncio.Event()

    async def one_pass() -> Run:
        return ended

    ends = [LeaseHeld("another"), DatabaseUnavailable("away"), DatabaseRefused("no right", hint="ask"), KeyError("bug")]
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks > len(ends):
            stop.set()
            return
        raise ends[looks - 1]

    with capture_logs() as logs:
        assert await watch(one_pass, 0, stop, look) is ExitCode.OK
    assert looks == len(ends) + 1
    assert [(entry["log_level"], entry.get("error") or entry.get("reason")) for entry in logs] == [
        ("info", "another"),
        ("error", "away"),
        ("error", "no right"),
        ("error", None),
    ]


async def test_the_detections_wait_for_a_pass_that_came_to_its_end(ended: Run) -> None:
    """Not after a pass that could not begin, and not once asked to stop; a stop in their middle ends it with 0."""
    stop, passes, looks = asyncio.Event(), 0, 0

    async def one_pass() -> Run:
        nonlocal passes
        passes += 1
        if passes == 1:
            raise DatabaseUnavailable("away")
        if passes == 4:
            stop.set()
        return ended

    async def look() -> None:
        nonlocal looks
        looks += 1

    with capture_logs():
        assert await watch(one_pass, 0, stop, look) is ExitCode.OK
    assert (passes, looks) == (4, 2)

    stop, passes = asyncio.Event(), 1

    async def stopped() -> None:
        stop.set()
        raise Interrupted("stopped before the end")

    with capture_logs() as logs:
        assert await watch(one_pass, 0, stop, stopped) is ExitCode.OK
    assert logs == []


@pytest.mark.parametrize(
    ("error", "code"), [(AccountingError("does not close"), ExitCode.SOFTWARE), (ApiUnavailable("away"), ExitCode.OK)]
)
async def test_an_accounting_that_does_not_close_ends_it_before_the_detections(
    ended: Run, error: ShipperError, code: ExitCode
) -> None:
    """A source that stays unavailable does not: the detections look at what is there."""
    stop = asyncio.Event()
    ended.errors.append(error)
    # A lane that went well: the run is not hopeless.
    ended.report.lane(ended.settings.all_sources()[0].source, Lane.ORGANIZATION)
    assert not ended.hopeless

    async def one_pass() -> Run:
        return ended

    async def look() -> None:
        stop.set()

    assert await watch(one_pass, 0, stop, look) is code
    assert stop.is_set() == (code is ExitCode.OK)
