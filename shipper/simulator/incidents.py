"""What a detection should find in the simulated month: one small story after another, each known by its event ids.

An incident comes back once per cycle, at a moment that depends on the seed and the cycle only. A cycle is a little
shorter than the simulated span, so that every span holds each incident whole at least once, whenever it is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from shipper.model import Lane, Window
from shipper.simulator.activity import from_browser
from shipper.simulator.directory import DOMAIN, Directory, User, base62
from shipper.simulator.events import Actor, Event, compose, event, serialise, session
from shipper.simulator.places import ATTACK_TOOL, ATTACKER, BROWSERS, HOMES, UNUSUAL

# No story takes longer than this, in seconds.
LONGEST = 3_000

Step = tuple[int, str, Actor, Mapping[str, Any] | None]
Story = Callable[[Random, Directory], Iterator[Step]]


def _failed_sign_ins_then_success(rng: Random, directory: Directory) -> Iterator[Step]:
    victim, address = directory.users[7], ATTACKER.address(rng)
    failure = {"error_code": "invalid_credentials", "error_message": "The credentials were not accepted."}
    at = 0
    for _ in range(rng.randint(10, 14)):
        yield at, "login.failed", session(rng, victim, ATTACKER, address, ATTACK_TOOL), failure
        at += rng.randint(8, 40)
    yield at, "login.succeeded", session(rng, victim, ATTACKER, address, ATTACK_TOOL), None


def _sign_in_from_new_country(rng: Random, directory: Directory) -> Iterator[Step]:
    user = directory.users[12]
    yield 0, "login.succeeded", session(rng, user, UNUSUAL, UNUSUAL.address(rng), user.user_agent), None


def _ip_allowlist_switched_off(rng: Random, directory: Directory) -> Iterator[Step]:
    configs = [{"id": f"ipallow_{base62(rng, 24)}", "name": "Office and VPN"}]
    yield 0, "ip_allowlist.config.deactivated", from_browser(rng, directory.owners[1]), {"configs": configs}


def _key_made_by_leaver(rng: Random, directory: Directory) -> Iterator[Step]:
    place = HOMES[0]
    leaver = User(
        id=f"user-{base62(rng, 24)}",
        name="Sam Parting",
        email=f"sam.parting.{rng.randrange(100)}@{DOMAIN}",
        role="member",
        place=place,
        addresses=(place.address(rng),),
        user_agent=BROWSERS[3],
        added_at=0,
    )
    actor = from_browser(rng, leaver)
    yield 0, "login.succeeded", actor, None
    made = {"id": f"key_{base62(rng, 16)}", "data": {"scopes": ["api.model.request", "api.files.read"]}}
    yield rng.randint(120, 600), "api_key.created", actor, made
    yield rng.randint(1_800, 2_700), "user.deleted", from_browser(rng, directory.owners[0]), {"id": leaver.id}


def _owner_role_granted(rng: Random, directory: Directory) -> Iterator[Step]:
    promoted = {"id": directory.users[11].id, "changes_requested": {"role": "owner"}}
    yield 0, "user.updated", from_browser(rng, directory.owners[2]), promoted


STORIES: Mapping[str, Story] = {
    "failed_sign_ins_then_success": _failed_sign_ins_then_success,
    "sign_in_from_new_country": _sign_in_from_new_country,
    "ip_allowlist_switched_off": _ip_allowlist_switched_off,
    "key_made_by_leaver": _key_made_by_leaver,
    "owner_role_granted": _owner_role_granted,
}


def occurrences(story: Story, directory: Directory, seed: str, cycle: int, span: Window) -> Iterator[list[Event]]:
    """Each time the story is told with its first event in the span, as its events, oldest first.

    `cycle` is the time from one telling to the next, in seconds; a telling can reach up to LONGEST beyond the span.
    """
    phase = Random(seed).randrange(cycle)  # noqa: S311 - seeded on purpose
    for number in range((span.start - phase) // cycle, (span.end - phase) // cycle + 1):
        began = number * cycle + phase
        if span.start <= began < span.end:
            rng = Random(f"{seed}/{number}")  # noqa: S311 - seeded on purpose
            yield [_event(rng, directory, began, step) for step in story(rng, directory)]


def _event(rng: Random, directory: Directory, began: int, step: Step) -> Event:
    offset, event_type, actor, payload = step
    project = directory.projects[1] if event_type == "api_key.created" else None
    body = compose(rng, event_type, began + offset, actor=actor, project=project, payload=payload)
    return event(body, Lane.ORGANIZATION, serialise(rng, body))
