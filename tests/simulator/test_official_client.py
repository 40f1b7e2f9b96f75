"""The official `openai` package against the simulator: what it lists is exactly what the simulator holds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI

from shipper.model import Lane
from shipper.simulator import RESTRICTED_KEY, Organization, Simulator
from shipper.simulator.misbehave import Misbehaviour


def official(simulator: Simulator, *, key: str = "", retries: int = 0) -> AsyncOpenAI:
    return AsyncOpenAI(
        api_key="unused",
        admin_api_key=key or simulator.admin_key,
        base_url=simulator.base_url,
        max_retries=retries,
    )


@pytest.fixture
async def api(simulator: Simulator) -> AsyncIterator[AsyncOpenAI]:
    async with official(simulator) as api:
        yield api


@pytest.mark.parametrize("limit", [20, 100])
@pytest.mark.parametrize("lane", [Lane.ORGANIZATION, Lane.TENANT])
async def test_auto_pagination_lists_every_event_of_a_lane_once(
    simulator: Simulator, api: AsyncOpenAI, lane: Lane, limit: int
) -> None:
    pages = api.admin.organization.audit_logs.list(limit=limit, tenant_only=lane is Lane.TENANT)
    found = [(event.id, event.effective_at) async for event in pages]
    truth = [(event_id, at) for event_id, at, _ in simulator.events(lane)]
    assert found == truth
    assert simulator.requests == -(-len(truth) // limit)


async def test_the_package_reads_actors_and_payloads(simulator: Simulator, api: AsyncOpenAI) -> None:
    pages = api.admin.organization.audit_logs.list(event_types=["api_key.created"], limit=100)
    created = [event async for event in pages]
    assert created
    for event in created:
        assert event.api_key_created is not None
        assert event.api_key_created.id is not None
        assert event.api_key_created.id.startswith("key_")
        assert event.actor is not None
        assert event.actor.session is not None
        assert event.actor.session.ip_address


async def test_its_filters_reach_the_server_as_documented(simulator: Simulator, api: AsyncOpenAI) -> None:
    newest = simulator.events()[0][1]
    window = {"gte": newest - 86_400, "lt": newest}
    pages = api.admin.organization.audit_logs.list(effective_at=window, limit=100)  # type: ignore[arg-type]
    found = [event.id async for event in pages]
    assert found == [event_id for event_id, at, _ in simulator.events() if newest - 86_400 <= at < newest]
    email = simulator.organization.directory.users[0].email
    by_email = [event async for event in api.admin.organization.audit_logs.list(actor_emails=[email], limit=100)]
    assert by_email
    assert all(email in event.to_json() for event in by_email)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        ("sk-admin-wrong", openai.AuthenticationError, "Incorrect API key provided"),
        ("sk-proj-anything", openai.PermissionDeniedError, "Missing scopes: api.audit_logs.read"),
        (RESTRICTED_KEY, openai.PermissionDeniedError, "Missing scopes: api.audit_logs.read"),
    ],
)
async def test_it_understands_the_refusals(
    simulator: Simulator, key: str, error: type[openai.APIStatusError], message: str
) -> None:
    async with official(simulator, key=key) as api:
        with pytest.raises(error) as caught:
            await api.admin.organization.audit_logs.list()
    assert message in caught.value.response.text
    assert key not in str(caught.value)
    assert (caught.value.request_id or "").startswith("req_")


async def test_it_retries_what_it_is_meant_to_retry(small: Organization) -> None:
    faults = Misbehaviour(errors=0.2, throttle=0.2, retry_after=0)
    async with Simulator(small, misbehaviour=faults) as simulator, official(simulator, retries=20) as api:
        found = [event.id async for event in api.admin.organization.audit_logs.list(limit=50)]
        pages = -(-len(simulator.events()) // 50)
        assert found == [event_id for event_id, _, _ in simulator.events()]
        assert simulator.requests > pages


async def test_it_lists_the_inventory(simulator: Simulator, api: AsyncOpenAI) -> None:
    directory = simulator.organization.directory
    organization = api.admin.organization
    assert [user.id async for user in organization.users.list(limit=5)] == [user.id for user in directory.users]
    projects = [project.id async for project in organization.projects.list(limit=2, include_archived=True)]
    assert projects == [project.id for project in directory.projects]
    keys = {key.id for project in projects for key in [k async for k in organization.projects.api_keys.list(project)]}
    assert keys == {key.id for key in directory.keys}
    accounts = {
        account.id
        for project in projects
        for account in [a async for a in organization.projects.service_accounts.list(project)]
    }
    assert accounts == {account.id for account in directory.service_accounts}
    assert {key.id async for key in organization.admin_api_keys.list(limit=1)} == {
        key.id for key in directory.admin_keys
    }
    assert [invite.id async for invite in organization.invites.list(limit=1)] == [
        invite.id for invite in directory.invites
    ]
    assert [role.id async for role in organization.roles.list(limit=1)] == [role.id for role in directory.roles]
    assert [group.id async for group in organization.groups.list(limit=3)] == [group.id for group in directory.groups]
