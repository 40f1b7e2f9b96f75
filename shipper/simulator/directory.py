"""Who and what the simulated organization has: users, projects, service accounts, keys. A pure function of the seed."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from string import ascii_letters, digits

from shipper.simulator.places import BROWSERS, FAMILY_NAMES, GIVEN_NAMES, HOMES, Place

DOMAIN = "northwind-robotics.example"
_FOUNDED = 1_709_251_200  # 2024-03-01: older than any month that is simulated
_BASE62 = digits + ascii_letters
_PROJECTS = ("Default project", "Support assistant", "Search ranking", "Data labelling", "Mobile app", "R&D (réseau)")
_SERVICE_ACCOUNTS = ("ci", "nightly-batch", "support-bot", "terraform", "evals")
_GROUPS = ("Engineering", "Data science", "Support", "Finance")


def base62(rng: Random, length: int) -> str:
    """Random letters and digits, as the API's ids end in."""
    return "".join(rng.choices(_BASE62, k=length))


@dataclass(frozen=True, slots=True)
class User:
    """A person. `addresses` are the ones they sign in from, all in `place`."""

    id: str
    name: str
    email: str
    role: str
    place: Place
    addresses: tuple[str, ...]
    user_agent: str
    added_at: int


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    name: str
    created_at: int


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    id: str
    name: str
    project_id: str
    role: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Key:
    """A project key, or an admin key when `project_id` is empty. Its owner is a user or a service account."""

    id: str
    name: str
    project_id: str
    owner: User | ServiceAccount
    created_at: int


@dataclass(frozen=True, slots=True)
class Named:
    """A group, a role or an invite: an id, and its name or e-mail address."""

    id: str
    name: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Directory:
    """Everything that stands still while the events go by. The first project is the default project."""

    id: str
    users: tuple[User, ...]
    projects: tuple[Project, ...]
    service_accounts: tuple[ServiceAccount, ...]
    keys: tuple[Key, ...]
    admin_keys: tuple[Key, ...]
    groups: tuple[Named, ...]
    roles: tuple[Named, ...]
    invites: tuple[Named, ...]

    @property
    def owners(self) -> tuple[User, ...]:
        return tuple(user for user in self.users if user.role == "owner")

    @classmethod
    def build(cls, seed: int) -> Directory:
        rng = Random(f"{seed}/directory")  # noqa: S311 - seeded on purpose: the same seed, the same organization
        users = tuple(_user(rng, number) for number in range(26))
        projects = tuple(Project(f"proj_{base62(rng, 24)}", name, _since(rng)) for name in _PROJECTS)
        accounts = tuple(
            ServiceAccount(f"user-{base62(rng, 24)}", name, rng.choice(projects).id, "member", _since(rng))
            for name in _SERVICE_ACCOUNTS
        )
        owners: list[User | ServiceAccount] = [*users[:12], *accounts]
        return cls(
            id=f"org-{base62(rng, 24)}",
            users=users,
            projects=projects,
            service_accounts=accounts,
            keys=tuple(_project_key(rng, owner, projects) for owner in owners for _ in range(2)),
            admin_keys=tuple(
                Key(f"key_{base62(rng, 16)}", name, "", users[number], _since(rng))
                for number, name in enumerate(("siem", "terraform", "billing export"))
            ),
            groups=tuple(Named(f"group_{base62(rng, 24)}", name, _since(rng)) for name in _GROUPS),
            roles=tuple(
                Named(f"role-{base62(rng, 24)}", name, _since(rng)) for name in ("owner", "reader", "key auditor")
            ),
            invites=tuple(Named(f"invite-{base62(rng, 24)}", guest(rng), _since(rng)) for _ in range(4)),
        )


def guest(rng: Random) -> str:
    """The e-mail address of somebody who is not a user of the organization yet; one in ten is of another company."""
    domain = "partner.example" if rng.random() < 0.1 else DOMAIN
    return f"{_ascii(rng.choice(GIVEN_NAMES))}.{rng.randrange(1000)}@{domain}"


def fingerprints(user_agent: str) -> tuple[str, str]:
    """The ja3 and ja4 of a browser: made up, in the right form, the same for the same browser."""
    digest = blake2b(user_agent.encode(), digest_size=28).hexdigest()
    return digest[:32], f"t13d1516h2_{digest[32:44]}_{digest[44:56]}"


def _user(rng: Random, number: int) -> User:
    given, family = GIVEN_NAMES[number % len(GIVEN_NAMES)], rng.choice(FAMILY_NAMES)
    place = HOMES[number % len(HOMES)]
    return User(
        id=f"user-{base62(rng, 24)}",
        name=f"{given} {family}",
        email=f"{_ascii(given)}.{_ascii(family)}@{DOMAIN}",
        role="owner" if number < 4 else "member",
        place=place,
        addresses=(place.address(rng), place.address(rng)),
        user_agent=rng.choice(BROWSERS),
        added_at=_since(rng),
    )


def _project_key(rng: Random, owner: User | ServiceAccount, projects: tuple[Project, ...]) -> Key:
    project = owner.project_id if isinstance(owner, ServiceAccount) else rng.choice(projects).id
    return Key(f"key_{base62(rng, 16)}", f"key of {owner.name}", project, owner, _since(rng))


def _since(rng: Random) -> int:
    return _FOUNDED + rng.randrange(600 * 86400)


def _ascii(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name.replace("ø", "o")).encode("ascii", "ignore")
    return plain.decode().lower()
