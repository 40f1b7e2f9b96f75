"""What people and programs do in the simulated organization: one entry per documented event type.

`weight` is how often it happens beside the others. `payload` is the documented shape of the payload; its leaves say
what to put there: `new:KIND` an id made today, `old:KIND` an id made in the last weeks, otherwise a name in `_DRAW`.
A list holds one to three of its element. The types without a documented payload have None. Types of the catalog that
are not here happen rarely and carry an id at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from shipper.simulator.directory import Directory, Project, base62, guest

Who = Literal["anyone", "owner", "automation", "system"]
Shape = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Action:
    """`hours` are the local hours of day between which it happens, with the busiest in the middle of the three."""

    weight: float
    who: Who
    payload: Shape | None = None
    in_project: bool = False
    hours: tuple[float, float, float] = (7.5, 14.0, 19.5)


def _admin(weight: float, payload: Shape | None, *, in_project: bool = False) -> Action:
    return Action(weight, "owner", payload, in_project)


_FAILURE = {"error_code": "error_code", "error_message": "error_message"}
_CERTIFICATES = {"certificates": [{"id": "old:certificate", "name": "name"}]}
_BINDING = {
    "id": "connector_resource",
    "connector_id": "connector",
    "connector_name": "name",
    "enabled": "boolean",
    "permissions": ["permission"],
    "resource_id": "connector_resource",
    "resource_type": "connector_type",
    "role_id": "role",
    "source": "binding_source",
    "workspace_id": "workspace",
}
_ASSIGNMENT = {
    "principal_id": "user",
    "principal_type": "principal_type",
    "resource_id": "organization",
    "resource_type": "organization_type",
}
_BUCKET = {
    "type": "aws",
    "account_id": "aws_account",
    "bucket": "bucket",
    "external_id": "external",
    "region": "aws_region",
    "role_arn": "role_arn",
}
_WIP_MAPPING = {"id": "old:wip_mapping", "identity_provider_id": "old:wip"}

# What a quiet organization does not do: somebody should look at each of these. They happen in incidents only.
ALARMING = frozenset(
    {
        "certificate.deleted",
        "certificates.deactivated",
        "external_key.registered",
        "external_key.removed",
        "external_storage.registered",
        "external_storage.removed",
        "ip_allowlist.config.deactivated",
        "ip_allowlist.deleted",
        "rate_limit.deleted",
        "scim.disabled",
        "tenant.admin_api_key.created",
        "tenant.billing.overage_limit.updated",
        "tenant.policy.deleted",
        "tenant.policy.detached",
        "tenant.policy.updated",
        "tenant.product_access_policy.updated",
        "tenant.resource_share_grant.accepted",
        "tenant.resource_share_grant.created",
        "tenant.resource_share_grant.updated",
        "tenant.scim.deletion.requested",
        "tenant.session_policy.created",
        "tenant.session_policy.deleted",
        "tenant.session_policy.updated",
        "tenant.sso.migrated",
        "tenant.sso_connection.created",
        "tenant.sso_connection.deleted",
        "tenant.sso_connection.updated",
        "tenant.third_party_app_policy.updated",
        "tenant.workload_identity.binding.created",
        "tenant.workload_identity.mapping.created",
        "tenant.workload_identity.mapping.updated",
        "tenant.workload_identity.provider.created",
        "tenant.workload_identity.provider.updated",
        "tunnel.created",
        "tunnel.updated",
        "workload_identity_provider.created",
        "workload_identity_provider.updated",
        "workload_identity_provider_mapping.created",
        "workload_identity_provider_mapping.updated",
    }
)

ACTIONS: Mapping[str, Action] = {
    "login.succeeded": Action(42, "anyone", hours=(6.5, 9.2, 20)),
    "login.failed": Action(3, "anyone", _FAILURE, hours=(6.5, 9.2, 20)),
    "logout.succeeded": Action(20, "anyone", hours=(10, 17.5, 22)),
    "logout.failed": Action(0.4, "anyone", _FAILURE, hours=(10, 17.5, 22)),
    "api_key.created": Action(6, "anyone", {"id": "new:key", "data": {"scopes": "scopes"}}, in_project=True),
    "api_key.updated": Action(
        2,
        "anyone",
        {"id": "old:key", "changes_requested": {"expires_in_seconds": "seconds", "scopes": ["least_scope"]}},
        in_project=True,
    ),
    "api_key.deleted": Action(4, "automation", {"id": "old:key"}, in_project=True),
    "certificate.created": _admin(0.4, {"id": "new:certificate", "name": "name"}),
    "certificate.updated": _admin(0.3, {"id": "old:certificate", "name": "name"}),
    "certificate.deleted": _admin(0.3, {"id": "old:certificate", "certificate": "pem", "name": "name"}),
    "certificates.activated": _admin(0.3, _CERTIFICATES),
    "certificates.deactivated": _admin(0.3, _CERTIFICATES),
    "checkpoint.permission.created": _admin(
        0.4, {"id": "new:permission", "data": {"fine_tuned_model_checkpoint": "checkpoint", "project_id": "project"}}
    ),
    "checkpoint.permission.deleted": _admin(0.3, {"id": "old:permission"}),
    "external_key.registered": _admin(0.2, {"id": "new:external_key", "data": {"provider": "cloud", "name": "name"}}),
    "external_key.removed": _admin(0.2, {"id": "old:external_key"}),
    "external_storage.registered": _admin(
        0.2,
        {"id": "new:storage", "data": {"geography": "geography", "provider": _BUCKET}},
    ),
    "external_storage.removed": _admin(0.2, {"id": "old:storage"}),
    "group.created": _admin(0.5, {"id": "new:group", "data": {"group_name": "name"}}),
    "group.updated": _admin(0.5, {"id": "group", "changes_requested": {"group_name": "name"}}),
    "group.deleted": _admin(0.3, {"id": "old:group"}),
    "invite.sent": _admin(2.5, {"id": "new:invite", "data": {"email": "guest", "role": "member"}}),
    "invite.accepted": Action(2, "anyone", {"id": "old:invite"}),
    "invite.deleted": _admin(0.6, {"id": "old:invite"}),
    "ip_allowlist.created": _admin(0.3, {"id": "new:allowlist", "allowed_ips": ["range"], "name": "name"}),
    "ip_allowlist.updated": _admin(0.4, {"id": "old:allowlist", "allowed_ips": ["range"]}),
    "ip_allowlist.deleted": _admin(0.2, {"id": "old:allowlist", "allowed_ips": ["range"], "name": "name"}),
    "ip_allowlist.config.activated": _admin(0.3, {"configs": [{"id": "old:allowlist", "name": "name"}]}),
    "ip_allowlist.config.deactivated": _admin(0.3, {"configs": [{"id": "old:allowlist", "name": "name"}]}),
    "organization.updated": _admin(
        0.4,
        {
            "id": "organization",
            "changes_requested": {
                "api_call_logging": "call_logging",
                "api_call_logging_project_ids": "project",
                "description": "name",
                "name": "name",
                "threads_ui_visibility": "visibility",
                "title": "name",
                "usage_dashboard_visibility": "visibility",
            },
        },
    ),
    "project.created": _admin(0.8, {"id": "target", "data": {"name": "name", "title": "name"}}, in_project=True),
    "project.updated": _admin(1.2, {"id": "target", "changes_requested": {"title": "name"}}, in_project=True),
    "project.archived": _admin(0.4, {"id": "target"}, in_project=True),
    "project.deleted": _admin(0.2, {"id": "target"}, in_project=True),
    "rate_limit.updated": _admin(
        1.5,
        {
            "id": "rate_limit",
            "changes_requested": {
                "batch_1_day_max_input_tokens": "count",
                "max_audio_megabytes_per_1_minute": "count",
                "max_images_per_1_minute": "count",
                "max_requests_per_1_day": "count",
                "max_requests_per_1_minute": "count",
                "max_tokens_per_1_minute": "count",
            },
        },
        in_project=True,
    ),
    "rate_limit.deleted": _admin(0.4, {"id": "rate_limit"}, in_project=True),
    "workload_identity_provider.created": _admin(0.2, {"id": "new:wip", "data": {"name": "name", "type": "oidc"}}),
    "workload_identity_provider.updated": _admin(0.2, {"id": "old:wip", "changes_requested": {"enabled": "boolean"}}),
    "workload_identity_provider.deleted": _admin(0.2, {"id": "old:wip", "name": "name"}),
    "workload_identity_provider_mapping.created": _admin(
        0.2, {"id": "new:wip_mapping", "data": {"project_id": "project"}, "identity_provider_id": "old:wip"}
    ),
    "workload_identity_provider_mapping.updated": _admin(
        0.2, {**_WIP_MAPPING, "changes_requested": {"enabled": "boolean"}}
    ),
    "workload_identity_provider_mapping.deleted": _admin(
        0.2, {**_WIP_MAPPING, "project_id": "project", "service_account_id": "service_account"}
    ),
    "role.created": _admin(
        0.4,
        {
            "id": "new:role",
            "permissions": ["permission"],
            "resource_id": "organization",
            "resource_type": "organization_type",
            "role_name": "name",
        },
    ),
    "role.updated": _admin(
        0.1,
        {
            "id": "role",
            "changes_requested": {
                "description": "name",
                "metadata": {"ticket": "name"},
                "permissions_added": ["permission"],
                "permissions_removed": ["permission"],
                "resource_id": "organization",
                "resource_type": "organization_type",
                "role_name": "name",
            },
        },
    ),
    "role.deleted": _admin(0.3, {"id": "old:role"}),
    "role.assignment.created": _admin(1.5, {"id": "new:assignment", **_ASSIGNMENT}),
    "role.assignment.deleted": _admin(0.8, {"id": "old:assignment", **_ASSIGNMENT}),
    "role.bound_to_resource": _admin(0.8, _BINDING),
    "role.unbound_from_resource": _admin(0.5, _BINDING),
    "scim.enabled": _admin(0.2, {"id": "organization"}),
    "scim.disabled": _admin(0.15, {"id": "organization"}),
    "service_account.created": _admin(1.2, {"id": "new:user", "data": {"role": "member"}}, in_project=True),
    "service_account.updated": _admin(
        0.4, {"id": "service_account", "changes_requested": {"role": "member"}}, in_project=True
    ),
    "service_account.deleted": Action(0.6, "automation", {"id": "old:user"}, in_project=True),
    "user.added": _admin(1.5, {"id": "new:user", "data": {"role": "member"}}),
    "user.updated": _admin(0.6, {"id": "user", "changes_requested": {"role": "member"}}),
    "user.deleted": _admin(0.6, {"id": "old:user"}),
}

_ID_FORMS: Mapping[str, tuple[str, int]] = {
    "key": ("key_", 16),
    "user": ("user-", 24),
    "certificate": ("cert_", 24),
    "permission": ("cp_", 24),
    "external_key": ("extkey_", 24),
    "storage": ("extstore_", 24),
    "group": ("group_", 24),
    "invite": ("invite-", 24),
    "allowlist": ("ipallow_", 24),
    "wip": ("wip_", 24),
    "wip_mapping": ("wipm_", 24),
    "role": ("role-", 24),
    "assignment": ("role-assignment-", 24),
    "tenant": ("tobj_", 24),
}

_WORDS: Mapping[str, tuple[Any, ...]] = {
    "aws": ("aws",),
    "aws_account": ("123456789012",),
    "aws_region": ("us-east-1", "eu-central-1"),
    "boolean": (True, False),
    "bucket": ("northwind-logs", "northwind-files"),
    "binding_source": ("role_toggle", "role_connector_update", "role_delete", "workspace_permissions"),
    "call_logging": ("enabled_for_all_projects",),
    "checkpoint": ("ft:gpt-5-mini:northwind::AbC123:ckpt-step-200", "ft:gpt-5-mini:northwind::XyZ789:ckpt-step-90"),
    "cloud": ("aws", "gcp", "azure"),
    "connector_type": ("chatgpt_workspace_connector",),
    "count": (10_000,),
    "error_code": ("invalid_credentials", "mfa_failed", "session_expired"),
    "error_message": ("The credentials were not accepted.", "Mehrfaktor-Prüfung fehlgeschlagen."),
    "geography": ("us", "eu"),
    "member": ("member",),
    "name": ("quarterly review", "EU ingress", 'the "new" one', "データ基盤", "ops/terraform", "Zoë und Søren"),
    "oidc": ("oidc",),
    "organization_type": ("api.organization",),
    "pem": ("-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUsimulated\n-----END CERTIFICATE-----\n",),
    "permission": ("api.groups.read", "api.model.request", "api.model.read", "api.files.read"),
    "principal_type": ("user",),
    "range": ("198.51.100.0/24", "203.0.113.7", "2001:db8:40::/48"),
    "rate_limit": ("rl-gpt-5", "rl-gpt-5-mini", "rl-text-embedding-3-large"),
    "role_arn": ("arn:aws:iam::123456789012:role/openai-storage",),
    "least_scope": ("api.model.request",),
    "scopes": (
        ["api.model.request"],
        ["api.model.request", "api.model.read"],
        ["api.model.request", "api.files.read", "api.vector_stores.write"],
    ),
    "seconds": (3_600, 86_400, 2_592_000),
    "visibility": ("OWNERS", "NONE"),
}

_DRAW: Mapping[str, Callable[[Random, Directory], str]] = {
    "connector": lambda rng, _: rng.choice(("asdk_app_drive", "asdk_app_chat")),
    "group": lambda rng, directory: rng.choice(directory.groups).id,
    "guest": lambda rng, _: guest(rng),
    "organization": lambda _, directory: directory.id,
    "project": lambda rng, directory: rng.choice(directory.projects).id,
    "role": lambda rng, directory: rng.choice(directory.roles).id,
    "service_account": lambda rng, directory: rng.choice(directory.service_accounts).id,
    "user": lambda rng, directory: rng.choice(directory.users).id,
    "workspace": lambda _, directory: f"ws-{directory.id[4:16]}",
}


class Painter:
    """Fills shapes for one day. Ids made on a day are a function of (seed, kind, day, number), so that a later day
    can speak of them without the day being simulated again."""

    def __init__(self, rng: Random, directory: Directory, seed: int, day: int) -> None:
        self._rng = rng
        self._directory = directory
        self._seed = seed
        self._day = day
        self._made: dict[str, int] = {}

    def fill(self, shape: Any, project: Project | None = None) -> Any:
        """The shape with every leaf drawn. `target` is the project the event belongs to."""
        if isinstance(shape, Mapping):
            drawn = {name: self.fill(inner, project) for name, inner in shape.items()}
            if "connector_id" in drawn:
                # Documented: such a resource is called <workspace_id>__<connector_id>.
                drawn["id"] = drawn["resource_id"] = f"{drawn['workspace_id']}__{drawn['connector_id']}"
            return drawn
        if isinstance(shape, list):
            return [self.fill(shape[0], project) for _ in range(self._rng.choice((1, 1, 2, 3)))]
        return self._leaf(shape, project)

    def _leaf(self, leaf: str, project: Project | None) -> Any:
        age, _, kind = leaf.partition(":")
        if leaf == "target" and project is not None:
            return project.id
        if leaf in _WORDS:
            return self._rng.choice(_WORDS[leaf])
        if leaf in _DRAW:
            return _DRAW[leaf](self._rng, self._directory)
        if age == "new":
            number = self._made.get(kind, 0)
            self._made[kind] = number + 1
            return self._id(kind, self._day, number)
        if age == "old":
            return self._id(kind, self._day - self._rng.randint(1, 14), self._rng.randrange(2))
        return f"{leaf}-{base62(self._rng, 8)}"

    def _id(self, kind: str, day: int, number: int) -> str:
        prefix, length = _ID_FORMS[kind]
        return prefix + base62(Random(f"{self._seed}/{kind}/{day}/{number}"), length)  # noqa: S311 - seeded on purpose
