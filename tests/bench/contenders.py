"""Who takes part, and how each is started. Every contender is a process with an empty database of its own.

All read the same events: those of both lanes, asked for one after the other where the API separates them. The shipper
has everything on that it has by default, and two GeoIP databases; nobody else enriches, deduplicates or keeps a ledger.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from shipper.config import Settings
from tests.bench import corpus, geoip
from tests.bench.files import CACHE, made

# Requests per second: more than any API answers here.
_AT_ONCE = 10_000.0

KEY = "sk-admin-bench"
PEERS = Path(__file__).parent / "peers"
SHIPPER = str(Path(sys.executable).parent / "shipper")


@dataclass(frozen=True, slots=True)
class Task:
    """What is measured. `latency` is seconds a page, `kind` one of backfill, replay, run."""

    name: str
    kind: str
    events: int = 0
    latency: float = 0.0
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender reads and writes. `clickhouse` is the URL of the server, without the database; dlt also needs
    the port of ClickHouse's own protocol.
    """

    base_url: str
    archive: Path
    clickhouse: str
    native_port: int
    database: str


@dataclass(frozen=True, slots=True)
class Contender:
    """`table` and `id_column` say where its events are afterwards. `schema`: the 46 columns are made beforehand.

    One that is `timed_inside` prints the seconds and the CPU seconds of the part that counts.
    """

    name: str
    title: str
    command: Callable[[Task, Place], Sequence[str]]
    environment: Callable[[Task, Place], Mapping[str, str]]
    table: str = "openai_audit_logs"
    id_column: str = "eventID"
    schema: bool = True
    timed_inside: bool = False


def highest_rate() -> float:
    """The most requests a second that the shipper takes as a setting, for an API that answers at once."""
    limits = [getattr(limit, "le", None) for limit in Settings.model_fields["requests_per_second"].metadata]
    return min([_AT_ONCE, *(float(limit) for limit in limits if limit is not None)])


def _bare_environment() -> dict[str, str]:
    """Of this process's environment only what any program needs."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _key_file() -> Path:
    return made(CACHE / "admin-key", lambda path: path.write_text(KEY))


def shipper_environment(task: Task, place: Place) -> dict[str, str]:
    return {
        **_bare_environment(),
        "OPENAI_ADMIN_KEY_FILE": str(_key_file()),
        "OPENAI_BASE_URL": place.base_url,
        "SHIPPER_CLICKHOUSE_URL": f"{place.clickhouse}/{place.database}",
        "SHIPPER_REQUESTS_PER_SECOND": str(highest_rate()),
        "SHIPPER_GEOIP_DATABASES": os.pathsep.join(map(str, geoip.databases())),
        **task.settings,
    }


def _shipper(task: Task, place: Place) -> list[str]:
    match task.kind:
        case "backfill":
            return [SHIPPER, "backfill", f"--since={corpus.SINCE}", f"--until={corpus.UNTIL}", "--json"]
        case "replay":
            return [SHIPPER, "replay", str(place.archive), "--json"]
    return [SHIPPER, task.kind, "--json"]


def _without_geoip(task: Task, place: Place) -> dict[str, str]:
    return {**shipper_environment(task, place), "SHIPPER_GEOIP_DATABASES": ""}


def _peer(name: str) -> Callable[[Task, Place], list[str]]:
    def command(task: Task, place: Place) -> list[str]:
        return [sys.executable, str(PEERS / f"{name}.py"), task.kind, str(place.archive)]

    return command


def _peer_environment(_: Task, place: Place) -> dict[str, str]:
    server = urlsplit(place.clickhouse)
    return {
        **_bare_environment(),
        "OPENAI_ADMIN_KEY": KEY,
        "OPENAI_BASE_URL": place.base_url,
        "CLICKHOUSE_HOST": server.hostname or "",
        "CLICKHOUSE_PORT": str(server.port),
        "CLICKHOUSE_NATIVE_PORT": str(place.native_port),
        "CLICKHOUSE_DATABASE": place.database,
    }


SHIPPER_ON = Contender("shipper", "shipper, everything on", _shipper, shipper_environment)
SHIPPER_NO_GEOIP = Contender("shipper-no-geoip", "shipper, no GeoIP databases", _shipper, _without_geoip)
SDK = Contender("sdk", "openai SDK + clickhouse-connect, a script", _peer("sdk"), _peer_environment)
DLT = Contender(
    "dlt",
    "dlt, rest_api or generator → clickhouse",
    _peer("dlt_pipeline"),
    _peer_environment,
    table="audit___events",
    id_column="id",
    schema=False,
)
ELT = Contender("elt", "raw JSON, normalized by SQL", _peer("elt"), _peer_environment)
CEILING = Contender(
    "ceiling", "ceiling: ready rows, the driver alone", _peer("ceiling"), _peer_environment, timed_inside=True
)
