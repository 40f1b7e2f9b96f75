"""Metrics as an operator switches them on: a file of a run, GET /metrics of watch, and neither by default."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from shipper.simulator import Misbehaviour, Organization, Simulator
from tests.cli.conftest import KEY, Shipper, clean_environment
from tests.cli.test_process import environment, start
from tests.mmdb import BUILT, city_record, write_mmdb
from tests.organizations import NOW
from tests.test_metrics import samples

EVENT = (
    b'{"id":"a%d","type":"login.failed","effective_at":%d,"actor":{"type":"session","session":{"ip_address":"%s"}}}\n'
)


def of_lane(lane: str, source: str = "source-1") -> tuple[tuple[str, str], ...]:
    return (("lane", lane), ("source", source), ("workspace", "default"))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Three events: an address that a database has, one that it has not, and none at all."""
    path = tmp_path / "events.ndjson"
    lines = [EVENT % (n, NOW + n, ip) for n, ip in enumerate((b"81.2.69.142", b"8.8.8.8", b""))]
    path.write_bytes(b"".join(lines) + b'{"id":"no time"}\n')
    return path


def test_a_run_writes_what_it_did_into_a_file(shipper: Shipper, archive: Path, tmp_path: Path) -> None:
    """The same numbers as its report, the GeoIP databases and the look-ups; no counters."""
    city = write_mmdb(tmp_path / "city.mmdb", "GeoLite2-City", {"81.2.69.0/24": city_record("FR", "Paris", 1.0, 2.0)})
    settings = {"SHIPPER_METRICS_FILE": "shipper.prom", "SHIPPER_GEOIP_DATABASES": str(city)}
    result = shipper("replay", str(archive), "--json", SHIPPER_SOURCE_ID="source-1", **settings)
    assert result.code == 0
    report = json.loads(result.out)
    assert report["lookups"] == {"made": 2, "found": 1, "failed": 0}
    lane = of_lane("archive")
    found = samples(Path("shipper.prom").read_text())
    assert {name: found[name, lane] for name, labels in found if labels == lane} == {
        "last_run_events_received": 4,
        "last_run_events_inserted": 3,
        "last_run_events_already_there": 0,
        "last_run_events_dead_lettered": 1,
        "last_run_events_unacknowledged": 0,
        "last_run_pages": report["lanes"][0]["pages"],
        "last_run_retries": 0,
        "last_run_windows": 0,
        "last_run_planned_windows": 0,
        "last_run_lane_duration_seconds": pytest.approx(report["lanes"][0]["seconds"], abs=0.001),
        "newest_event_timestamp_seconds": NOW + 2,
    }
    assert found["last_run_exit_code", ()] == 0
    assert found["last_run_finished_timestamp_seconds", ()] >= report["finished"]
    assert found["last_run_enrichment_lookups", (("outcome", "found"),)] == 1
    assert found["last_run_enrichment_lookups", (("outcome", "not_found"),)] == 1
    assert found["geoip_database_info", (("path", str(city)), ("type", "GeoLite2-City"))] == 1
    assert found["geoip_database_build_timestamp_seconds", (("path", str(city)),)] == BUILT
    assert not [name for name, _ in found if name.endswith("_total")]


def test_a_run_that_fails_writes_its_exit_code(shipper: Shipper, organization: dict[str, str]) -> None:
    """With lanes when it came to read, without when it did not; the keys are in neither."""
    wrong = {**organization, "OPENAI_ADMIN_KEY": KEY, "SHIPPER_METRICS_FILE": "shipper.prom"}
    assert shipper("run", **wrong).code == 77
    found = samples(Path("shipper.prom").read_text())
    assert found["last_run_exit_code", ()] == 77
    status = {dict(labels)["status"]: value for (name, labels), value in found.items() if name == "last_run_status"}
    assert status == {"ok": 0, "refused": 0, "failed": 1, "stopped": 0}
    away = {**wrong, "SHIPPER_CLICKHOUSE_URL": "http://127.0.0.1:9/x", "SHIPPER_RETRIES": "0"}
    assert shipper("run", **away).code == 69
    text = Path("shipper.prom").read_text()
    assert samples(text)["last_run_exit_code", ()] == 69
    assert "last_run_status{" not in text
    assert KEY not in text


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("SHIPPER_METRICS_LISTEN", "9464", "metrics_listen: expected an address and a port"),
        ("SHIPPER_METRICS_LISTEN", "{taken}", "metrics_listen {taken}: cannot listen there: it is in use"),
        ("SHIPPER_METRICS_LISTEN", "203.0.113.7:9464", "cannot listen there: "),
        (
            "SHIPPER_METRICS_FILE",
            "nowhere/shipper.prom",
            "metrics_file nowhere/shipper.prom: its folder does not exist",
        ),
    ],
)
def test_where_metrics_cannot_go_is_a_wrong_setting(
    shipper: Shipper, taken: str, setting: str, value: str, message: str
) -> None:
    """78 before the first pass, with a hint or the form that is expected."""
    result = shipper("watch", OPENAI_ADMIN_KEY=KEY, **{setting: value.format(taken=taken)})
    assert (result.code, result.out) == (78, "")
    assert message.format(taken=taken) in result.err
    assert "such as 127.0.0.1:9464" in result.err or "hint:" in result.err


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    organization = Organization.build(seed=5, now=NOW, days=2, events_per_day=20)
    async with Simulator(organization, admin_key=KEY, misbehaviour=Misbehaviour(), clock=lambda: NOW) as running:
        yield running


async def test_watch_serves_its_metrics_while_it_goes_on(
    simulator: Simulator, embedded_url: str, tmp_path: Path
) -> None:
    """Two passes: the counters are their sum, the gauges are the second's, and the file says the same as HTTP."""
    port, file = free_port(), tmp_path / "shipper.prom"
    more = {
        "SHIPPER_METRICS_LISTEN": f"127.0.0.1:{port}",
        "SHIPPER_METRICS_FILE": str(file),
        "SHIPPER_LOOKBACK": "5000d",
        "SHIPPER_WINDOW": "5000d",
        "SHIPPER_OVERLAP": "4000d",
    }
    arguments = ("watch", "--interval", "1s", "--no-detect", "--json")
    process = await start(environment(simulator, embedded_url, **more), *arguments)
    assert process.stdout is not None
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        reports = [json.loads(await process.stdout.readline()) for _ in range(2)]
        async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
            assert response.status == 200
            served = samples(await response.text())
        process.terminate()
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    later = [json.loads(line) for line in out.splitlines()]
    passes = int(served["passes_total", (("exit_code", "0"),)])
    counted = [*reports, *later][:passes]
    assert passes >= 2
    for name, attribute in (("events_received", "received"), ("events_inserted", "inserted"), ("pages", "pages")):
        for number, lane in enumerate(("organization", "tenant")):
            values = [one["lanes"][number][attribute] for one in counted]
            assert served[f"{name}_total", of_lane(lane)] == sum(values)
            assert served[f"last_run_{name}", of_lane(lane)] == values[-1]
    assert served["events_inserted_total", of_lane("organization")] > 0
    newest = max(at for _, at, _ in simulator.events())
    assert served["newest_event_timestamp_seconds", of_lane("organization")] == newest
    # A pass that the signal stopped has an exit code of its own.
    written, kept = (
        {key for key in known if key[0] != "passes_total"} for known in (samples(file.read_text()), served)
    )
    assert written == kept
    assert KEY not in file.read_text()


async def test_watch_runs_the_detections_and_tells_how_far_they_have_come(embedded_url: str, tmp_path: Path) -> None:
    """An allowlist that was switched off is found and sent, without `shipper detect`; the metrics say so over HTTP."""
    port, config = free_port(), tmp_path / "shipper.yaml"
    config.write_text("alert_routes: [{name: out, type: stdout}]\n")
    now = int(time.time())
    async with Simulator(Organization.build(seed=5, now=now, days=1, events_per_day=5), admin_key=KEY) as simulator:
        simulator.add_event("ip_allowlist.config.deactivated", effective_at=now - 60)
        more = {"SHIPPER_METRICS_LISTEN": f"127.0.0.1:{port}", "SHIPPER_CONFIG": str(config)}
        process = await start(environment(simulator, embedded_url, **more), "watch", "--interval", "1s", "--json")
        assert process.stdout is not None
        alerts: list[str] = []
        found: list[str] = []
        async with asyncio.timeout(60), aiohttp.ClientSession() as session:
            while not found:
                line = json.loads(await process.stdout.readline())
                if "alert" in line:
                    alerts.append(line["finding"]["title"])
                elif line["command"] == "detect":
                    found = line["findings"]
            async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
                served = samples(await response.text())
            process.terminate()
            _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert "IP allowlist deleted or switched off" in alerts
    assert served["detection_passes_total", (("exit_code", "0"),)] >= 1
    assert served["last_detection_exit_code", ()] == 0
    assert served["alerts_delivered_total", (("route", "out"),)] == len(alerts)
    assert served["alerts_pending", (("route", "out"),)] == 0
    assert served["detection_watermark_timestamp_seconds", ()] >= now
    assert served["last_run_exit_code", ()] == 0


def test_a_pass_of_the_detections_writes_its_metrics(shipper: Shipper, archive: Path) -> None:
    """Gauges of the pass, nothing of a run, no counter; one that cannot look leaves its exit code."""
    metrics = {"SHIPPER_METRICS_FILE": "detect.prom"}
    assert shipper("detect", **metrics).code == 78
    assert samples(Path("detect.prom").read_text())["last_detection_exit_code", ()] == 78
    assert shipper("replay", str(archive)).code == 0
    report = json.loads(shipper("detect", "--json", **metrics).out)
    found = samples(Path("detect.prom").read_text())
    assert found["last_detection_exit_code", ()] == 0
    watermark = datetime.fromtimestamp(found["detection_watermark_timestamp_seconds", ()], UTC)
    assert watermark == datetime.fromisoformat(report["watermark"])
    assert report["watermark"] == report["until"]
    assert not [name for name, _ in found if name.startswith("last_run_") or name.endswith("_total")]
    written = Path("detect.prom").read_bytes()
    for chosen in (("--rule", "signin_brute_force_success"), ("--from", "1d"), ("--dry-run",)):
        assert shipper("detect", *chosen, **metrics).code == 0
    assert Path("detect.prom").read_bytes() == written


@pytest.mark.parametrize(("setting", "loaded"), [("", False), ("SHIPPER_METRICS_LISTEN", False), ("file", True)])
def test_the_library_is_imported_only_when_it_is_used(
    archive: Path, tmp_path: Path, setting: str, *, loaded: bool
) -> None:
    """A run that starts every minute does not pay for it, and does not listen: that is for watch."""
    more = {"": {}, "file": {"SHIPPER_METRICS_FILE": "m.prom"}}.get(setting, {setting: "127.0.0.1:1"})
    program = (
        "import sys; from shipper.cli import _run; code = _run(['replay', sys.argv[1]]);"
        "print(code, any(name.startswith('prometheus_client') for name in sys.modules))"
    )
    command = [sys.executable, "-c", program, str(archive)]
    done = subprocess.run(command, env={**clean_environment(), **more}, cwd=tmp_path, capture_output=True, check=True)
    code, imported = done.stdout.decode().splitlines()[-1].split()
    assert (code, imported) == ("0", str(loaded))


def test_without_the_settings_nothing_is_written(shipper: Shipper, archive: Path, tmp_path: Path) -> None:
    assert shipper("replay", str(archive)).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.ndjson", "shipper-data"]
