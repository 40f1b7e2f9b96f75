"""The sources of the keystore as the commands handle them: tried against the API, added, looked through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from shipper.config import Settings, SourceSettings, entry_of, source_of
from shipper.errors import ApiError, ShipperError, UsageError
from shipper.fetch.audit_logs import probe
from shipper.fetch.client import AdminClient
from shipper.fetch.ratelimit import RateLimiter
from shipper.model import Lane

_MEANINGS = {
    401: "OpenAI does not know this key: it is mistyped, deleted, or of another kind. An admin key begins with "
    "sk-admin- and is made under Organization settings > Admin keys.",
    403: "OpenAI knows this key, and it may not read the audit log: it needs the scope Audit Logs: Read "
    "(api.audit_logs.read). The organization's IP allowlist or mutual-TLS policy answers so as well.",
    429: "Too many requests: the key was not judged. Try again in a minute, or `sources add --no-test` now and "
    "`sources test` later.",
}

NO_EVENTS = "no event came back. Is audit logging on? Organization settings > Data controls > Data retention."


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one request with a source's key: `events` says whether one came back, `error` why none could."""

    source: SourceSettings
    events: bool = False
    error: ShipperError | None = None


async def try_key(source: SourceSettings, settings: Settings) -> bool:
    """Ask once for the newest event; whether there is one. Raises ApiError, with what 401, 403 and 429 mean as hint."""
    once = settings.model_copy(update={"retries": 0})
    try:
        async with AdminClient(source, once, limiter=RateLimiter(settings.requests_per_second)) as client:
            return bool((await probe(client, Lane.ORGANIZATION)).events)
    except ApiError as error:
        error.hint = _MEANINGS.get(error.status or 0, error.hint)
        raise


async def add(
    source: SourceSettings, settings: Settings, *, replace: bool, test: bool, clock: Callable[[], float]
) -> bool | None:
    """Put a source into the keystore, after one request with its key unless `test` is off.

    Returns whether an event came back, None when nothing was asked. Raises UsageError for an id that is taken, ApiError
    when the key does not work, ConfigError for a keystore or an address that cannot be used; then nothing is stored.
    """
    if any(source.id == other.id for other in settings.sources_beside_keystore()):
        raise UsageError(f"a source {source.id!r} is configured already, beside the keystore", hint="Use another id.")
    if not source.id.isprintable() or not source.workspace.isprintable():
        raise UsageError("an id or a workspace holds a character that cannot be shown")
    store = settings.open_keystore()
    if store.path.exists():
        taken = {entry.id for entry in store.entries()}
        if source.id in taken and not replace:
            raise UsageError(
                f"the keystore has a source {source.id!r} already", hint="Give it another key with --replace."
            )
    # Refuses an address that cannot be used, also when nothing is sent there now.
    AdminClient(source, settings, limiter=RateLimiter(settings.requests_per_second))
    events = await try_key(source, settings) if test else None
    store.add(entry_of(source, added_at=int(clock())), replace=replace)
    return events


async def try_keys(settings: Settings, only: str | None = None) -> AsyncIterator[Trial]:
    """Try the key of every source in the keystore, one after the other, or of the one whose id is `only`."""
    sources = [source_of(entry) for entry in settings.open_keystore().entries()]
    if only is not None and only not in {source.id for source in sources}:
        known = ", ".join(source.id for source in sources) or "none"
        raise UsageError(f"the keystore has no source {only!r}", hint=f"It has: {known}")
    for source in sources:
        if only in {None, source.id}:
            try:
                yield Trial(source, events=await try_key(source, settings))
            except ShipperError as error:
                yield Trial(source, error=error)
