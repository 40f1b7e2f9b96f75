"""The API at its worst, in front of the shipper as a process: whatever it does, every event arrives once."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from shipper.simulator import Misbehaviour
from tests.faults import oracle, proxy
from tests.faults.attack import is_page
from tests.faults.oracle import Verdict
from tests.faults.proxy import Rule
from tests.faults.rig import Rig

_EMPTY = b'{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":true}'


async def assert_recovers(rig: Rig) -> None:
    """Nothing is there that should not be; healed and run to the end, all of it is there, and a new event too."""
    early = await rig.verdict(complete=False)
    assert not early.guilty, early
    await rig.ship_to_the_end()
    assert await rig.verdict() == Verdict()


@pytest.mark.parametrize(
    ("misbehaviour", "pages"),
    [
        pytest.param(Misbehaviour(errors=0.4), 12, id="500 and 502"),
        pytest.param(Misbehaviour(throttle=0.4), 12, id="429"),
        pytest.param(Misbehaviour(reset=0.4), 12, id="connection ends in the body"),
        pytest.param(Misbehaviour(cut=0.4), 12, id="JSON cut"),
        pytest.param(Misbehaviour(documents=1.0), 0, id="newline-separated documents"),
    ],
)
async def test_answers_that_go_wrong_cost_retries_and_no_events(
    rig: Rig, misbehaviour: Misbehaviour, pages: int
) -> None:
    """A share of the answers is spoilt: the run is done in the end, in one go, with every event in the table once."""
    rig.misbehave(misbehaviour)
    result = await rig.run("run", SHIPPER_RETRIES="20")
    assert result.code == 0, result.err
    assert rig.simulator.requests > pages
    retried = [line for line in result.log if line["event"] == "request failed, trying again"]
    assert bool(retried) == bool(pages)
    assert await rig.verdict() == Verdict()


@pytest.mark.parametrize(
    ("header", "shortest", "longest"),
    [
        pytest.param(lambda: {"Retry-After": "1"}, 1.0, 1.0, id="seconds"),
        pytest.param(lambda: {"Retry-After": formatdate(time.time() + 3, usegmt=True)}, 0.0, 3.0, id="HTTP date"),
        pytest.param(lambda: {"retry-after-ms": "700"}, 0.7, 0.7, id="milliseconds"),
    ],
)
async def test_a_storm_of_429_is_waited_out_as_it_asks(
    rig: Rig, header: object, shortest: float, longest: float
) -> None:
    """Three refusals in a row, then answers: the pauses are those of the header, and nothing is lost."""
    assert callable(header)
    rig.api.spoil([Rule("429", is_page, proxy.reply_with(429, b"{}", header()), count=3)])
    result = await rig.run("run", SHIPPER_RETRY_CEILING="5s", SHIPPER_CONCURRENCY="1")
    assert result.code == 0, result.err
    pauses = [line["seconds"] for line in result.log if line.get("status") == 429]
    assert len(pauses) == 3
    # A date that has passed by the third try asks for nothing: then it is the shipper's own backoff, of 4 s at most.
    assert all(shortest <= pause <= longest for pause in pauses[:1])
    assert await rig.verdict() == Verdict()


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
async def test_a_body_that_breaks_off_is_asked_for_again(rig: Rig, reset: bool) -> None:  # noqa: FBT001 - a parameter
    """Behind a load balancer that dies: half the body, then the end of the connection, four times."""
    rig.api.spoil([Rule("cut", is_page, proxy.cut_answer(reset=reset), first=2, count=4)])
    result = await rig.run("run")
    assert result.code == 0, result.err
    assert rig.api.done["cut"] == 4
    assert await rig.verdict() == Verdict()


async def test_an_empty_page_with_has_more_is_asked_for_again(rig: Rig) -> None:
    rig.api.spoil([Rule("empty", is_page, proxy.reply_with(200, _EMPTY), first=2, count=2)])
    result = await rig.run("run")
    assert result.code == 0, result.err
    assert rig.api.done["empty"] == 2
    assert await rig.verdict() == Verdict()


async def test_pages_that_stay_empty_end_with_69_and_claim_nothing(rig: Rig) -> None:
    rig.misbehave(Misbehaviour(empty=1.0))
    result = await rig.run("run")
    assert result.code == 69
    assert "stayed empty" in result.err
    assert oracle.read(rig.direct).claims == ()
    await assert_recovers(rig)


async def test_a_repeated_cursor_ends_with_69_and_claims_nothing(rig: Rig) -> None:
    """One window of several pages: what came is kept, and the ledger does not get the window."""
    rig.misbehave(Misbehaviour(repeat_cursor=1.0))
    result = await rig.run("run", SHIPPER_WINDOW="365d", SHIPPER_TENANT_LANE="false")
    assert result.code == 69
    assert "makes no progress" in result.err or "same events as the page before" in result.err
    table = oracle.read(rig.direct)
    assert len(table.plain) > 0
    assert table.claims == ()
    await assert_recovers(rig)


async def test_a_key_that_is_revoked_in_mid_run_is_77(rig: Rig) -> None:
    rig.misbehave(Misbehaviour(revoke_after=4))
    result = await rig.run("run", SHIPPER_CONCURRENCY="1")
    assert result.code == 77
    assert "401" in result.err
    assert "api.audit_logs.read" in result.hint
    await assert_recovers(rig)
