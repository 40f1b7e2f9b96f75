"""alerts test and list, as a person sees them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from shipper.detect import findings
from shipper.detect.alerts import outbox
from shipper.detect.alerts.outbox import State
from shipper.load import schema
from shipper.load.clickhouse import Database, connect
from tests.cli.conftest import Shipper
from tests.conftest import database_settings
from tests.detect.alerts import published
from tests.detect.alerts.routes import ONE, RUN, TWO, route
from tests.detect.alerts.samples import NOW
from tests.secrets_scan import canary

KEY = canary("cli-alerts")


class Endpoint:
    """A receiver in a thread: what it answers, and what it got."""

    def __init__(self) -> None:
        self.status, self.answer = 200, b"ok"
        self.bodies: list[bytes] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                endpoint.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(endpoint.status)
                self.send_header("Content-Length", str(len(endpoint.answer)))
                self.end_headers()
                self.wfile.write(endpoint.answer)

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the library's name
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    started = Endpoint()
    thread = threading.Thread(target=started.server.serve_forever)
    thread.start()
    yield started
    started.server.shutdown()
    thread.join()
    started.server.server_close()


@pytest.fixture
def routes(tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with a route of each kind that leads to the endpoint."""
    (tmp_path / "admin-key").write_text(KEY)
    (tmp_path / "slack").mkdir()
    (tmp_path / "slack" / "admin-key").write_text(f"{endpoint.url}/services/T0/B0/{KEY}")
    entries: list[dict[str, Any]] = [
        {"name": "soc", "type": "slack", "url_file": "slack/admin-key", "min_severity": "critical"},
        {"name": "pager", "type": "pagerduty", "url": endpoint.url, "key_file": "admin-key"},
        {"name": "am", "type": "alertmanager", "url": endpoint.url},
        {"name": "hook", "type": "webhook", "url": endpoint.url, "key_file": "admin-key"},
        {"name": "out", "type": "stdout"},
        {"name": "lost", "type": "webhook", "url": endpoint.url, "key_file": "gone-key"},
    ]
    config = tmp_path / "shipper.yaml"
    config.write_text(yaml.safe_dump({"alert_routes": entries}))
    monkeypatch.setenv("SHIPPER_CONFIG", str(config))
    return config


def test_a_test_says_what_came_back(shipper: Shipper, routes: Path, endpoint: Endpoint) -> None:
    """One finding that is marked as made up, whatever the route's filters; nothing is written down."""
    result = shipper("alerts", "test", "soc", SHIPPER_CONFIG=str(routes))
    assert (result.code, result.out, result.err) == (0, "soc: 200 OK: ok\n", "")
    [body] = endpoint.bodies
    assert list(published.slack(body)) == []
    assert json.loads(body)["text"].startswith("[INFO] TEST of openai-audit-shipper, nothing has happened")
    assert not Path("shipper-data").exists()


def test_each_kind_of_route_can_be_tried(shipper: Shipper, routes: Path, endpoint: Endpoint) -> None:
    """The same finding each time, so that a second test opens nothing new."""
    endpoint.status = 202
    assert shipper("alerts", "test", "pager").out == "pager: 202 Accepted: ok\n"
    assert shipper("alerts", "test", "pager").code == 0
    assert shipper("alerts", "test", "pager", "--resolve").code == 0
    events = [json.loads(body) for body in endpoint.bodies]
    assert [event["event_action"] for event in events] == ["trigger", "trigger", "resolve"]
    assert len({event["dedup_key"] for event in events}) == 1
    assert events[0]["routing_key"] == KEY
    endpoint.status = 200
    assert (shipper("alerts", "test", "am").code, shipper("alerts", "test", "am", "--resolve").code) == (0, 0)
    first, second = [json.loads(body)[0] for body in endpoint.bodies[3:]]
    assert (first["labels"], first["endsAt"] > second["endsAt"]) == (second["labels"], True)
    assert shipper("alerts", "test", "hook").out == "hook: 200 OK: ok\n"
    printed = shipper("alerts", "test", "out").out.splitlines()
    assert (json.loads(printed[0])["finding"]["rule"], printed[1:]) == ("test", ["out: written"])


def test_a_refusal_ends_with_its_code_and_a_hint(shipper: Shipper, routes: Path, endpoint: Endpoint) -> None:
    """Tried once: a person waits. The URL and the key are not shown, though the receiver repeats them."""
    endpoint.status, endpoint.answer = 404, f"no_service {KEY}".encode()
    result = shipper("alerts", "test", "soc")
    assert (result.code, result.out) == (69, "")
    assert result.err.splitlines() == [
        "error: alert route 'soc': 404 Not Found: no_service <SECRET>",
        "hint:  Check the route's url: there is nothing, or nothing any more.",
    ]
    endpoint.status, endpoint.answer = 503, b""
    assert shipper("alerts", "test", "hook").code == 69
    assert len(endpoint.bodies) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nobody"], 64, "no alert route is called 'nobody'\nhint:  There are: soc, pager, am, hook, out, lost."),
        (["soc", "--resolve"], 64, "a slack route knows no end of an alert"),
        (["lost"], 78, "cannot read the key of alert route 'lost'"),
        ([], 64, "Missing argument 'ROUTE'"),
    ],
)
def test_a_wrong_call_says_what_to_do(
    shipper: Shipper, routes: Path, arguments: list[str], code: int, message: str
) -> None:
    result = shipper("alerts", "test", *arguments)
    assert (result.code, result.out, message in result.err) == (code, "", True)


def test_without_routes_a_test_says_where_they_go(shipper: Shipper) -> None:
    result = shipper("alerts", "test", "soc")
    assert (result.code, "`alert_routes` in the configuration file names them" in result.err) == (64, True)


async def fill(database: Database) -> None:
    await schema.apply(database)
    await findings.add(database, RUN, [ONE, TWO], window=(0, 1))
    slack, pager = route("slack", "https://x.example", name="soc"), route("pagerduty", name="pager")
    await outbox.queue(database, RUN, [ONE], [slack, pager], (), NOW)
    await outbox.queue(database, RUN, [TWO], [slack], (), NOW + 60)
    waiting = {(one.route, one.finding_id): one for one in await outbox.unfinished(database)}
    await outbox.note(database, [waiting["soc", ONE.id]], State.REFUSED, "404 Not Found: no_service", NOW + 120)
    await outbox.note(database, [waiting["pager", ONE.id]], State.DELIVERED, "", NOW + 120)
    await outbox.note(database, [waiting["soc", TWO.id]], State.PENDING, "503 [bold]", NOW + 120)


def test_the_list_has_what_did_not_arrive(shipper: Shipper, tmp_path: Path) -> None:
    """Pending and refused, with age, tries and error; not what was delivered."""

    async def prepare() -> None:
        database = await connect(database_settings(f"chdb:{tmp_path / 'shipper-data'}"))
        await fill(database)
        await database.close()

    asyncio.run(prepare())
    listed = json.loads(shipper("alerts", "list", "--json").out)
    assert all(one.pop("age_seconds") > 0 for one in listed)
    assert listed == [
        {
            "route": "soc",
            "finding": ONE.id,
            "action": "trigger",
            "state": "refused",
            "queued_at": "2026-11-18T11:06:40Z",
            "done_at": "2026-11-18T11:08:40Z",
            "attempts": 1,
            "error": "404 Not Found: no_service",
        },
        {
            "route": "soc",
            "finding": TWO.id,
            "action": "trigger",
            "state": "pending",
            "queued_at": "2026-11-18T11:07:40Z",
            "done_at": None,
            "attempts": 1,
            "error": "503 [bold]",
        },
    ]
    result = shipper("alerts", "list")
    lines = result.out.splitlines()
    assert (result.code, lines[-1]) == (0, "2 alerts")
    assert [line.split()[:4] for line in lines if "soc" in line] == [
        ["soc", "refused", "trigger", ONE.id[:16]],
        ["soc", "pending", "trigger", TWO.id[:16]],
    ]
    assert "503 [bold]" in result.out


def test_an_empty_list_explains_itself(shipper: Shipper, routes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = shipper("alerts", "list")
    assert (result.code, result.out) == (
        0,
        "No alert is pending, and none was refused: what detections found has arrived, or no route takes it.\n",
    )
    assert shipper("alerts", "list", "--json").out == "[]\n"
    monkeypatch.delenv("SHIPPER_CONFIG")
    assert shipper("alerts", "list").out == (
        "No alerts, and no routes: name them in alert_routes of the configuration file. "
        "`shipper alerts test ROUTE` tries one.\n"
    )
    assert shipper("schema", "apply").code == 0
    assert shipper("alerts", "list").out.startswith("No alerts, and no routes")
