from __future__ import annotations

import asyncio
from dataclasses import fields
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer

from shipper.errors import UsageError
from shipper.simulator import Misbehaviour, Organization, Simulator
from shipper.simulator.log import EventLog
from shipper.simulator.misbehave import Fault
from shipper.simulator.server import Api, application
from tests.simulator.raw import Got, get, walk

NOW = 1_763_620_000.0


async def ask(
    client: aiohttp.ClientSession, organization: Organization, misbehaviour: Misbehaviour, times: int = 40
) -> list[Got]:
    async with Simulator(organization, misbehaviour=misbehaviour, clock=lambda: NOW) as simulator:
        return [await get(client, simulator) for _ in range(times)]


async def test_nothing_misbehaves_by_default(client: aiohttp.ClientSession, small: Organization) -> None:
    assert {answer.status for answer in await ask(client, small, Misbehaviour())} == {200}


async def test_errors_are_500_with_json_and_502_without(client: aiohttp.ClientSession, small: Organization) -> None:
    answers = await ask(client, small, Misbehaviour(errors=0.5))
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 500, 502}
    assert 10 <= len(statuses) - statuses.count(200) <= 30
    assert all(answer.json["error"]["type"] == "server_error" for answer in answers if answer.status == 500)
    assert all(answer.headers["Content-Type"] == "text/html" for answer in answers if answer.status == 502)


async def test_the_same_seed_fails_the_same_requests_and_another_seed_others(
    client: aiohttp.ClientSession, small: Organization
) -> None:
    first, again, other = [
        [answer.status for answer in await ask(client, small, Misbehaviour(errors=0.5, seed=seed))]
        for seed in (1, 1, 2)
    ]
    assert first == again != other


async def test_throttling_uses_every_form_of_retry_after(client: aiohttp.ClientSession, small: Organization) -> None:
    answers = await ask(client, small, Misbehaviour(throttle=1, retry_after=7))
    assert {answer.status for answer in answers} == {429}
    assert all(answer.json["error"]["code"] == "rate_limit_exceeded" for answer in answers)
    assert {answer.headers["retry-after-ms"] for answer in answers if "retry-after-ms" in answer.headers} == {"7000"}
    forms = {answer.headers["Retry-After"] for answer in answers if "Retry-After" in answer.headers}
    dates = forms - {"7"}
    assert forms - dates == {"7"}
    assert [parsedate_to_datetime(date).timestamp() for date in dates] == [NOW + 7]


async def test_a_reset_ends_the_connection_inside_the_body_by_fin_and_by_rst(small: Organization) -> None:
    endings = set()
    async with Simulator(small, misbehaviour=Misbehaviour(reset=1)) as simulator:
        address = urlsplit(simulator.base_url)
        for _ in range(10):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(
                b"GET /v1/organization/audit_logs?limit=100 HTTP/1.1\r\nHost: localhost\r\n"
                b"Authorization: Bearer %b\r\n\r\n" % simulator.admin_key.encode()
            )
            try:
                await reader.readexactly(10**9)
            except (asyncio.IncompleteReadError, ConnectionResetError) as error:
                endings.add(type(error))
            writer.close()
    assert endings == {asyncio.IncompleteReadError, ConnectionResetError}


async def test_a_client_sees_a_reset_as_an_error_of_the_connection(
    client: aiohttp.ClientSession, small: Organization
) -> None:
    async with Simulator(small, misbehaviour=Misbehaviour(reset=1)) as simulator:
        for _ in range(10):
            with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientConnectionError)):
                await get(client, simulator, params=[("limit", "100")])


async def test_a_cut_body_is_complete_http_and_incomplete_json(
    client: aiohttp.ClientSession, small: Organization
) -> None:
    (answer,) = await ask(client, small, Misbehaviour(cut=1), times=1)
    assert answer.status == 200
    assert answer.body.startswith(b'{"object":"list","data":[')
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(answer.body)


async def test_documents_come_one_after_the_other_in_one_body(
    client: aiohttp.ClientSession, small: Organization
) -> None:
    (plain,), (several,) = [await ask(client, small, Misbehaviour(documents=share), times=1) for share in (0, 1)]
    parts = several.body.split(b'\n{"object":"list"')
    assert len(parts) == 3
    documents = [orjson.loads(parts[0])] + [orjson.loads(b'{"object":"list"' + part) for part in parts[1:]]
    assert [event["id"] for document in documents for event in document["data"]] == plain.ids
    assert documents[-1]["last_id"] == plain.json["last_id"]
    assert documents[-1]["has_more"] == plain.json["has_more"]


@pytest.mark.parametrize("limit", [1, 7])
async def test_a_repeated_cursor_serves_the_page_that_ended_with_it(
    client: aiohttp.ClientSession, small: Organization, limit: int
) -> None:
    async with Simulator(small, misbehaviour=Misbehaviour(repeat_cursor=1)) as simulator:
        first = await get(client, simulator, params=[("limit", str(limit))])
        after = [("limit", str(limit)), ("after", first.json["last_id"])]
        again = await get(client, simulator, params=after)
        assert again.ids == first.ids
        assert again.json["last_id"] == first.json["last_id"]
        assert again.json["has_more"] is True
        assert (await get(client, simulator, params=[("after", "audit_log-none")])).status == 400


async def test_an_empty_page_says_there_is_more(client: aiohttp.ClientSession, small: Organization) -> None:
    (answer,) = await ask(client, small, Misbehaviour(empty=1), times=1)
    assert answer.json == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": True}


async def test_latency_is_waited_before_each_answer(small: Organization) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    api = Api(small, EventLog(small.events), "sk-admin-test", Misbehaviour(latency=0.25), lambda: NOW)
    async with TestClient(TestServer(application(api, sleep=sleep))) as client:
        for _ in range(2):
            async with client.get("/v1/organization/users") as response:
                assert response.status == 401
    assert waited == [0.25, 0.25]


@pytest.mark.parametrize(("status", "form"), [(400, dict), (403, str)])
async def test_the_tenant_lane_can_be_refused_alone(
    client: aiohttp.ClientSession, small: Organization, status: int, form: type
) -> None:
    async with Simulator(small, misbehaviour=Misbehaviour(tenant=status)) as simulator:
        refused = await get(client, simulator, params=[("tenant_only", "true")])
        assert refused.status == status
        assert isinstance(refused.json["error"], form)
        assert (await get(client, simulator)).status == 200


async def test_a_key_is_revoked_after_so_many_requests(client: aiohttp.ClientSession, small: Organization) -> None:
    answers = await ask(client, small, Misbehaviour(revoke_after=3), times=5)
    assert [answer.status for answer in answers] == [200, 200, 200, 401, 401]
    assert answers[-1].json["error"]["code"] == "invalid_api_key"


async def test_late_events_show_up_when_the_clock_reaches_them(
    client: aiohttp.ClientSession, small: Organization
) -> None:
    now = [float(small.now)]
    late = Misbehaviour(late=3_600)
    async with Simulator(small, misbehaviour=late, clock=lambda: now[0]) as simulator:
        fresh = simulator.add_event("login.succeeded", effective_at=small.now)
        truth = [event_id for event_id, _, _ in simulator.events()]
        seen = await walk(client, simulator, [("limit", "100")])
        visible = [event_id for event_id, at, _ in simulator.events() if at + 3_600 <= now[0]]
        assert seen == visible != truth
        now[0] += 3_599
        assert fresh not in await walk(client, simulator, [("limit", "100")])
        now[0] += 1
        assert await walk(client, simulator, [("limit", "100")]) == truth


async def test_only_some_events_are_late_so_that_they_appear_out_of_order(
    client: aiohttp.ClientSession, small: Organization
) -> None:
    late = Misbehaviour(late=365 * 86_400, late_fraction=0.25)
    async with Simulator(small, misbehaviour=late, clock=lambda: NOW) as simulator:
        truth = [event_id for event_id, _, _ in simulator.events()]
        seen = await walk(client, simulator, [("limit", "100")])
        again = await walk(client, simulator, [("limit", "10")])
        assert seen == again == [event_id for event_id in truth if event_id in set(seen)]
        assert 0.6 < len(seen) / len(truth) < 0.9


async def test_a_walk_with_many_faults_still_finds_everything_when_it_tries_again(
    client: aiohttp.ClientSession, small: Organization
) -> None:
    faults = Misbehaviour(errors=0.2, throttle=0.1, cut=0.1, reset=0.1)
    async with Simulator(small, misbehaviour=faults) as simulator:
        found: list[str] = []
        params = [("limit", "10")]
        for _ in range(500):
            try:
                page = await get(client, simulator, params=params)
                data = page.json
            except (aiohttp.ClientError, orjson.JSONDecodeError):
                continue
            if page.status != 200:
                continue
            found += page.ids
            if not data["has_more"]:
                break
            params = [("limit", "10"), ("after", data["last_id"])]
        assert found == [event_id for event_id, _, _ in simulator.events()]
        assert simulator.requests > len(found) / 10 * 1.3


def test_switches_are_read_from_text() -> None:
    text = " errors=0.1, latency=0.05,tenant=403,revoke_after=7,late=90 ,"
    expected = Misbehaviour(errors=0.1, latency=0.05, tenant=403, revoke_after=7, late=90.0)
    assert Misbehaviour.parse(text) == expected
    assert Misbehaviour.parse("") == Misbehaviour()


def test_every_fault_has_a_switch() -> None:
    assert {fault.value for fault in Fault} <= {field.name for field in fields(Misbehaviour)}


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("error=0.1", "unknown misbehaviour 'error'", "'errors'"),
        ("zzz=1", "unknown misbehaviour 'zzz'", "There are: errors, throttle"),
        ("errors", "errors: expected a number, got ''", ""),
        ("errors=many", "errors: expected a number, got 'many'", ""),
        ("tenant=4.5", "tenant: expected a whole number, got '4.5'", ""),
        ("tenant=404", "tenant: expected 400 or 403, got 404", ""),
        ("errors=-0.1", "errors: expected a number of at least 0, got -0.1", ""),
        ("latency=nan", "latency: expected a number of at least 0, got nan", ""),
        ("latency=inf", "latency: expected a number of at least 0, got inf", ""),
        ("errors=0.6,throttle=0.6", "add up to 1 at most", "'throttle': 0.6"),
        ("late_fraction=2", "add up to 1 at most", ""),
    ],
)
def test_what_is_not_a_switch_or_a_number_is_a_usage_error(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        Misbehaviour.parse(text)
    assert message in str(caught.value)
    assert hint in caught.value.hint


def test_fractions_may_add_up_to_one() -> None:
    faults = Misbehaviour(errors=0.1, throttle=0.2, reset=0.3, cut=0.1, documents=0.1, repeat_cursor=0.1, empty=0.1)
    assert {faults.fault(request) for request in range(200)} == set(Fault)
