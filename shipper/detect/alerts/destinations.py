"""The destinations by their type: what each is sent, and what it says when it has accepted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shipper.config import Settings
from shipper.detect.alerts import alertmanager, pagerduty, slack, webhook
from shipper.detect.alerts.actions import TRIGGER, ends, opening
from shipper.detect.alerts.answers import Promise, Secrets
from shipper.detect.alerts.sender import Receiver, Request, checked, proxy_for
from shipper.detect.alerts.text import encode
from shipper.detect.findings import Finding
from shipper.detection_settings import RouteSettings
from shipper.errors import ConfigError


class Item(NamedTuple):
    """A finding and what is to be said of it: an action of the outbox."""

    finding: Finding
    action: str = TRIGGER


Build = Callable[[Receiver, Sequence[Item], float], Request]


@dataclass(frozen=True, slots=True)
class Destination:
    """A type of route. `batch` is how many alerts go into one request, `resolves` whether it knows their end.

    `build` makes the request for a moment of time: a signature has one. It is None for standard output.
    """

    build: Build | None
    promise: Promise
    batch: int = 1
    resolves: bool = False
    default_url: str = ""


def _slack(receiver: Receiver, items: Sequence[Item], now: float) -> Request:
    return Request(receiver.url, encode(slack.payload(items[0].finding)), {})


def _pagerduty(receiver: Receiver, items: Sequence[Item], now: float) -> Request:
    finding, action = items[0]
    return Request(receiver.url, encode(pagerduty.payload(finding, receiver.key, resolve=ends(action))), {})


def _alertmanager(receiver: Receiver, items: Sequence[Item], now: float) -> Request:
    alerts = [
        alertmanager.payload(finding, now, resolve=ends(action), acknowledged_at=opening(action))
        for finding, action in items
    ]
    return Request(receiver.url.joinpath(alertmanager.PATH), encode(alerts), {})


def _webhook(receiver: Receiver, items: Sequence[Item], now: float) -> Request:
    finding, action = items[0]
    body = encode(webhook.payload(finding))
    return Request(receiver.url, body, webhook.headers(finding, body, receiver.key, now, action=action))


DESTINATIONS = {
    "slack": Destination(_slack, Promise(body=b"ok", name="200 ok")),
    "pagerduty": Destination(_pagerduty, Promise((202,), name="202"), resolves=True, default_url=pagerduty.URL),
    "alertmanager": Destination(_alertmanager, Promise(), batch=alertmanager.BATCH, resolves=True),
    "webhook": Destination(_webhook, Promise(tuple(range(200, 300)), name="2xx")),
    "stdout": Destination(None, Promise(), batch=100),
}


def receiver_of(route: RouteSettings, settings: Settings) -> Receiver:
    """Where the route leads. Raises ConfigError for a file that cannot be read, and for a URL that cannot be used."""
    destination = DESTINATIONS[route.type]
    url = checked(route.read_url(destination.default_url), settings, route=route.name)
    key = route.read_key()
    if route.type in {"pagerduty", "webhook"} and not key:
        raise ConfigError(f"alert route {route.name!r}: the key is empty")
    return Receiver(
        route=route.name,
        url=url,
        key=key,
        promise=destination.promise,
        secrets=Secrets.of(str(url), key),
        proxy=proxy_for(url, settings),
    )
