from __future__ import annotations

import aiohttp
import orjson
import pytest
from yarl import URL

from shipper.errors import UsageError
from shipper.model import Lane
from shipper.simulator import RESTRICTED_KEY, Misbehaviour, Organization, Simulator
from tests.simulator.raw import get, walk

BOTH = [Lane.ORGANIZATION, Lane.TENANT]
AUDIT = "/organization/audit_logs"


@pytest.mark.parametrize("lane", BOTH)
async def test_the_pages_hold_every_event_in_its_own_bytes(
    client: aiohttp.ClientSession, simulator: Simulator, lane: Lane
) -> None:
    truth = simulator.events(lane)
    params = [("limit", "100"), ("tenant_only", str(lane is Lane.TENANT).lower())]
    cursor: list[tuple[str, str]] = []
    for start in range(0, len(truth), 100):
        page = await get(client, simulator, params=[*params, *cursor])
        here = truth[start : start + 100]
        assert page.headers["Content-Type"] == "application/json"
        assert page.ids == [event_id for event_id, _, _ in here]
        assert b",".join(raw for _, _, raw in here) in page.body
        assert page.json["has_more"] == (start + 100 < len(truth))
        assert (page.json["first_id"], page.json["last_id"]) == (here[0][0], here[-1][0])
        cursor = [("after", page.json["last_id"])]


async def test_twenty_events_are_a_page_by_default(client: aiohttp.ClientSession, simulator: Simulator) -> None:
    page = await get(client, simulator)
    assert page.ids == [event_id for event_id, _, _ in simulator.events()[:20]]


async def test_brackets_may_be_percent_encoded(client: aiohttp.ClientSession, simulator: Simulator) -> None:
    headers = {"Authorization": f"Bearer {simulator.admin_key}"}
    at = simulator.events()[0][1]
    url = f"{simulator.base_url}{AUDIT}?effective_at%5Bgte%5D={at}"
    async with client.get(URL(url, encoded=True), headers=headers) as response:
        found = [event["id"] for event in (await response.json())["data"]]
    assert found == [event_id for event_id, when, _ in simulator.events() if when >= at]


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic c2stYWRtaW4=", "Bearer sk-admin-wrong"])
async def test_no_key_or_a_wrong_key_is_401_with_the_error_object(
    client: aiohttp.ClientSession, simulator: Simulator, authorization: str
) -> None:
    refused = await get(client, simulator, headers={"Authorization": authorization})
    assert refused.status == 401
    error = refused.json["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "invalid_api_key")
    assert b"wrong" not in refused.body


@pytest.mark.parametrize("key", ["sk-proj-abc", RESTRICTED_KEY])
@pytest.mark.parametrize(
    ("path", "scope"), [(AUDIT, "api.audit_logs.read"), ("/organization/users", "api.management.read")]
)
async def test_a_key_without_the_scope_is_403_with_a_bare_string(
    client: aiohttp.ClientSession, simulator: Simulator, key: str, path: str, scope: str
) -> None:
    refused = await get(client, simulator, path, headers={"Authorization": f"Bearer {key}"})
    assert refused.status == 403
    text = f"You have insufficient permissions for this operation. Missing scopes: {scope}. "
    assert refused.json["error"].startswith(text)


async def test_the_organization_header_has_to_match_when_it_is_sent(
    client: aiohttp.ClientSession, simulator: Simulator
) -> None:
    own = await get(client, simulator, headers={"OpenAI-Organization": simulator.organization.id})
    foreign = await get(client, simulator, headers={"OpenAI-Organization": "org-other"})
    assert (own.status, foreign.status) == (200, 401)
    assert foreign.json["error"]["code"] == "mismatched_organization"


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ([("limit", "0")], "limit"),
        ([("limit", "101")], "limit"),
        ([("effective_at[gt]", "x")], "effective_at[gt]"),
        ([("event_types[]", "no.such")], "event_types[]"),
        ([("tenant_only", "true"), ("event_types[]", "login.failed")], "event_types[]"),
        ([("after", "audit_log-none")], "after"),
        ([("before", "audit_log-none")], "before"),
    ],
)
async def test_bad_values_are_400_with_the_error_object(
    client: aiohttp.ClientSession, simulator: Simulator, params: list[tuple[str, str]], param: str
) -> None:
    refused = await get(client, simulator, params=params)
    assert refused.status == 400
    error = refused.json["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


async def test_other_paths_are_404_and_other_methods_405(client: aiohttp.ClientSession, simulator: Simulator) -> None:
    assert (await get(client, simulator, "/organization/nothing")).status == 404
    assert (await get(client, simulator, "/organization/audit_logs/")).status == 404
    for path in (AUDIT, "/organization/users"):
        headers = {"Authorization": f"Bearer {simulator.admin_key}"}
        async with client.post(simulator.base_url + path, headers=headers) as response:
            assert response.status == 405
            assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_every_answer_has_a_request_id_of_its_own(client: aiohttp.ClientSession, simulator: Simulator) -> None:
    answers = [
        await get(client, simulator),
        await get(client, simulator),
        await get(client, simulator, params=[("limit", "0")]),
        await get(client, simulator, headers={"Authorization": ""}),
        await get(client, simulator, "/nothing"),
    ]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == len(answers)
    assert all(request_id.startswith("req_") for request_id in ids)


async def test_requests_are_counted_and_the_newest_are_kept(
    client: aiohttp.ClientSession, simulator: Simulator
) -> None:
    await get(client, simulator, params=[("limit", "1"), ("effective_at[gte]", "5")])
    await get(client, simulator, "/organization/users", headers={"Authorization": ""})
    assert simulator.requests == 2
    asked = list(simulator.log)
    assert [path for path, _ in asked] == ["/v1/organization/audit_logs", "/v1/organization/users"]
    assert asked[0][1].startswith("limit=1&effective_at")


async def test_an_added_event_appears_at_its_place_in_its_lane(
    client: aiohttp.ClientSession, small: Organization
) -> None:
    async with Simulator(small, clock=lambda: float(small.now)) as simulator:
        fresh = simulator.add_event("api_key.deleted", payload={"id": "key_new"}, project=small.directory.projects[0])
        tenant = simulator.add_event("tenant.user.invited", actor=None)
        unknown = simulator.add_event("no.such.type", effective_at=small.now + 1)
        old = simulator.add_event("login.succeeded", effective_at=small.lane("organization")[3].effective_at)
        ids = await walk(client, simulator, [("limit", "100")])
        assert ids[:2] == [unknown, fresh]
        assert ids == [event_id for event_id, _, _ in simulator.events()]
        assert old in ids[-6:]
        assert tenant not in ids
        assert tenant == simulator.events("tenant")[0][0]
        body = orjson.loads(next(raw for event_id, _, raw in simulator.events() if event_id == fresh))
        assert body["api_key.deleted"] == {"id": "key_new"}
        assert body["effective_at"] == small.now
        assert "actor" not in body
        by_target = await walk(client, simulator, [("resource_ids[]", "key_new")])
        assert by_target == [fresh]
    assert fresh not in {event.id for event in small.events}


async def test_raw_bytes_are_served_as_given(client: aiohttp.ClientSession, small: Organization) -> None:
    hostile = b'{"id":"audit_log-x","note":"\\ud800"}'
    async with Simulator(small) as simulator:
        simulator.add_raw(hostile, id="audit_log-x", effective_at=small.now + 5)
        page = await get(client, simulator, params=[("limit", "2")])
        assert page.body.startswith(b'{"object":"list","data":[' + hostile + b",")
        assert simulator.events()[0] == ("audit_log-x", small.now + 5, hostile)


async def test_requests_over_the_rate_are_429_until_time_passes(
    client: aiohttp.ClientSession, small: Organization
) -> None:
    now = [1_000.0]
    async with Simulator(small, misbehaviour=Misbehaviour(rate=2), clock=lambda: now[0]) as simulator:
        answers = [await get(client, simulator) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].headers["Retry-After"] == "1"
        assert answers[2].json["error"]["code"] == "rate_limit_exceeded"
        now[0] += 0.5
        assert [(await get(client, simulator)).status for _ in range(2)] == [200, 429]


async def test_a_slow_rate_says_how_long_to_wait(client: aiohttp.ClientSession, small: Organization) -> None:
    async with Simulator(small, misbehaviour=Misbehaviour(rate=0.1), clock=lambda: 0.0) as simulator:
        await get(client, simulator)
        assert (await get(client, simulator)).headers["Retry-After"] == "10"


async def test_a_port_in_use_is_a_usage_error(simulator: Simulator, small: Organization) -> None:
    port = int(simulator.base_url.split(":")[2].removesuffix("/v1"))
    with pytest.raises(UsageError, match=f"port {port}: it is in use") as caught:
        await Simulator(small, port=port).__aenter__()
    assert "0 for a free one" in caught.value.hint


async def test_a_host_that_is_not_here_is_a_usage_error(small: Organization) -> None:
    with pytest.raises(UsageError, match=r"cannot listen on 192\.0\.2\.1 port 0"):
        await Simulator(small, host="192.0.2.1", public=True).__aenter__()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])  # noqa: S104 - to be refused
def test_an_address_that_others_reach_is_refused_unless_allowed(small: Organization, host: str) -> None:
    with pytest.raises(UsageError, match="this machine only"):
        Simulator(small, host=host)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2"])
async def test_every_loopback_name_is_fine(client: aiohttp.ClientSession, small: Organization, host: str) -> None:
    async with Simulator(small, host=host) as simulator:
        assert simulator.base_url.startswith(f"http://{host}:")
        assert (await get(client, simulator)).status == 200


def test_an_ipv6_address_is_written_in_brackets(small: Organization) -> None:
    assert Simulator(small, host="::1", port=8080).base_url == "http://[::1]:8080/v1"


async def test_closing_what_was_never_opened_is_harmless(small: Organization) -> None:
    await Simulator(small).__aexit__(None, None, None)


def test_the_key_is_in_no_representation(small: Organization) -> None:
    simulator = Simulator(small, admin_key="sk-admin-very-secret")
    assert "very-secret" not in repr(simulator._api)
    assert simulator.admin_key == "sk-admin-very-secret"
