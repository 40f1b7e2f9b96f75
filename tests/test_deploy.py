"""The image and the manifests fit the product: its commands, its settings, its exit codes, its dependencies."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import kubernetes_validate
import pytest
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from shipper import __version__, run
from shipper.cli.app import build
from shipper.config import Settings
from shipper.errors import ExitCode, ShipperError
from shipper.settings_file import environment_name, load_settings
from tests import kustomize

ROOT = Path(__file__).parent.parent
BASE = ROOT / "deploy" / "kubernetes" / "base"

# The oldest Kubernetes whose podFailurePolicy is stable, and the newest whose schema the test knows.
KUBERNETES = ("1.31", kubernetes_validate.latest_version())

# What an operator has to mend ends the job; what may pass by itself is tried again.
FAIL_AT_ONCE = {ExitCode.USAGE, ExitCode.DATAERR, ExitCode.NOPERM, ExitCode.CONFIG}
TRY_AGAIN = {ExitCode.UNAVAILABLE, ExitCode.SOFTWARE, ExitCode.TEMPFAIL}


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    """The base's objects: as kubectl renders them, or as our own rendering does where there is no kubectl.

    By kind, and what runs the detections by `Detect`.
    """
    own = {_key(item): item for item in kustomize.render(BASE)}
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return own
    rendered = subprocess.run([kubectl, "kustomize", str(BASE)], capture_output=True, text=True, check=True)
    theirs = {_key(item): item for item in yaml.safe_load_all(rendered.stdout)}
    assert own == theirs
    return theirs


def _key(item: dict[str, Any]) -> str:
    return "Detect" if item["metadata"]["name"].endswith("-detect") else str(item["kind"])


def test_the_detections_run_like_the_shipper(objects: dict[str, Any]) -> None:
    """The same pod under the same policy, but for the command: what is tested of the one holds for the other."""
    ships, detects = (objects[name]["spec"] for name in ("CronJob", "Detect"))
    [container] = detects["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container.pop("args") == ["detect"]
    [container] = ships["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    rest = {**container}
    assert rest.pop("args") == ["run"]
    assert detects["jobTemplate"]["spec"]["template"]["spec"]["containers"] == [rest]
    assert {**detects["jobTemplate"]["spec"], "template": None} == {**ships["jobTemplate"]["spec"], "template": None}
    assert detects.keys() == ships.keys()


@pytest.fixture(scope="module")
def job(objects: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = objects["CronJob"]["spec"]["jobTemplate"]["spec"]
    return spec


@pytest.fixture(scope="module")
def pod(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    assert "initContainers" not in pod
    return dict(only)


def test_a_feature_that_the_own_rendering_lacks_is_refused(tmp_path: Path) -> None:
    """Without kubectl nothing is checked that kustomize would render differently."""
    (tmp_path / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\nnamePrefix: x-\n"
    )
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a}\n")
    with pytest.raises(KeyError, match="namePrefix"):
        kustomize.render(tmp_path)


def test_the_base_holds_what_a_run_needs_and_no_secret(objects: dict[str, Any]) -> None:
    """Five kinds, two jobs among them, all in one namespace. The key is never among what is applied."""
    assert set(objects) == {"Namespace", "ServiceAccount", "NetworkPolicy", "CronJob", "Detect", "ConfigMap"}
    spaces = {kind: item["metadata"].get("namespace") for kind, item in objects.items()}
    assert spaces.pop("Namespace") is None
    assert set(spaces.values()) == {objects["Namespace"]["metadata"]["name"]}


@pytest.mark.parametrize("version", KUBERNETES)
def test_every_object_is_valid_kubernetes(objects: dict[str, Any], version: str) -> None:
    """No unknown field and no wrong type, by the strict schema of the version; the example Secret as well."""
    secret = yaml.safe_load((BASE / "secret.example.yaml").read_text(encoding="utf-8"))
    for item in [*objects.values(), secret]:
        kubernetes_validate.validate(item, version, strict=True)


def test_an_invalid_object_is_refused(objects: dict[str, Any]) -> None:
    """The validation can fail."""
    wrong = json.loads(json.dumps(objects["CronJob"]))
    wrong["spec"]["concurrencyPolicies"] = wrong["spec"].pop("concurrencyPolicy")
    with pytest.raises(kubernetes_validate.ValidationError, match="concurrencyPolicies"):
        kubernetes_validate.validate(wrong, KUBERNETES[-1], strict=True)


def test_the_arguments_are_a_command(container: dict[str, Any]) -> None:
    """The real parser takes the container's arguments to the end, and refuses others."""
    assert "command" not in container, "the image's entry point is the command"
    assert _parsed(container["args"]) == ["run"]
    with pytest.raises(Exception, match="--nonsense"):
        _parsed([*container["args"], "--nonsense"])


def _parsed(arguments: list[str]) -> list[str]:
    """Run the command line with every command's body left out: the name of the command that would have run."""
    ran: list[str] = []

    def stub(command: Any) -> None:
        if isinstance(command, TyperGroup):
            for name in command.list_commands(context):
                stub(command.get_command(context, name))
        else:
            command.callback = lambda **_: ran.append(command.name)

    whole: Any = get_command(build())
    context = whole.make_context("shipper", list(arguments))
    stub(whole)
    whole.main(list(arguments), standalone_mode=False)
    return ran


def _volume_files(objects: dict[str, Any], pod: dict[str, Any], container: dict[str, Any]) -> dict[str, str]:
    """Every file that the volumes put into the container, with its content; the Secret's are the example's."""
    secret = yaml.safe_load((BASE / "secret.example.yaml").read_text(encoding="utf-8"))
    files: dict[str, str] = {}
    for mount in container["volumeMounts"]:
        (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
        assert mount["readOnly"] is True
        if "configMap" in volume:
            assert volume["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]
            content = objects["ConfigMap"]["data"]
        else:
            assert volume["secret"]["secretName"] == secret["metadata"]["name"]
            assert secret["metadata"]["namespace"] == objects["CronJob"]["metadata"]["namespace"]
            content = secret["stringData"]
        files |= {f"{mount['mountPath']}/{name}": text for name, text in content.items()}
    return files


@pytest.fixture
def cluster_settings(
    objects: dict[str, Any],
    pod: dict[str, Any],
    container: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    """The settings that the container would have: its environment, and the file that the ConfigMap mounts."""
    for setting in [*map(environment_name, Settings.model_fields), "SHIPPER_CONFIG"]:
        monkeypatch.delenv(setting, raising=False)
    values = {variable["name"]: variable["value"] for variable in container["env"]}
    config = tmp_path / "config.yaml"
    config.write_text(_volume_files(objects, pod, container)[values.pop("SHIPPER_CONFIG")], encoding="utf-8")
    monkeypatch.setenv("SHIPPER_CONFIG", str(config))
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_environment_and_configuration_are_accepted(
    cluster_settings: Settings, container: dict[str, Any], pod: dict[str, Any], objects: dict[str, Any]
) -> None:
    """The real parser takes every name; rows go to a server; secrets are files that the Secret has."""
    names = {variable["name"] for variable in container["env"]}
    assert names <= {environment_name(field) for field in Settings.model_fields} | {"SHIPPER_CONFIG"}
    assert "envFrom" not in container
    assert cluster_settings.clickhouse_url.startswith("https://"), "the image has no embedded database"
    sources = cluster_settings.all_sources()
    assert [(source.admin_key, cluster_settings.clickhouse_password) for source in sources] == [(None, None)]
    wanted = {str(cluster_settings.clickhouse_password_file), *(str(source.admin_key_file) for source in sources)}
    secret_files = {name for name in _volume_files(objects, pod, container) if name.startswith("/run/secrets/")}
    assert wanted == secret_files


def test_the_example_secret_is_an_example() -> None:
    """It is not among the resources, and no value looks like a key."""
    secret = yaml.safe_load((BASE / "secret.example.yaml").read_text(encoding="utf-8"))
    assert set(secret["stringData"].values()) == {"REPLACE-ME"}
    assert (
        "secret.example.yaml"
        not in yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    )
    for path in (ROOT / "deploy").rglob("*"):
        assert not path.is_file() or not re.search(r"sk-(admin-)?\w{8}", path.read_text(encoding="utf-8")), path


def _subclasses(error: type[ShipperError]) -> Iterator[type[ShipperError]]:
    yield error
    for child in error.__subclasses__():
        yield from _subclasses(child)


def test_the_job_ends_at_once_for_what_only_a_person_can_mend(job: dict[str, Any]) -> None:
    """Disruptions never count. Each exit code of each error has a decision, and the policy is that decision."""
    ignore, fail = job["podFailurePolicy"]["rules"]
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert fail == {
        "action": "FailJob",
        "onExitCodes": {"containerName": "shipper", "operator": "In", "values": sorted(map(int, FAIL_AT_ONCE))},
    }
    assert {error.exit_code for error in _subclasses(ShipperError)} == FAIL_AT_ONCE | TRY_AGAIN
    assert set(ExitCode) == FAIL_AT_ONCE | TRY_AGAIN | {ExitCode.OK}
    transient = {error.exit_code for error in _subclasses(ShipperError) if error.transient}
    assert transient <= TRY_AGAIN, "an error that may pass by itself must not end the job"
    assert job["backoffLimit"] > 0


def test_the_readme_says_what_each_exit_code_does(job: dict[str, Any]) -> None:
    """The table in deploy/README.md has every exit code once, with the policy's decision."""
    text = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    decisions = {int(code): what for code, what in re.findall(r"^\| (\d+) \|[^|]+\| ([^|.]+)", text, re.MULTILINE)}
    expected = {ExitCode.OK: "Job succeeds"}
    expected |= dict.fromkeys(FAIL_AT_ONCE, "Job fails at once") | dict.fromkeys(TRY_AGAIN, "Pod is tried again")
    assert decisions == {int(code): what for code, what in expected.items()}


def test_runs_do_not_pile_up_or_die_out(objects: dict[str, Any], job: dict[str, Any], pod: dict[str, Any]) -> None:
    """One run a minute and never two; no missed start stops the CronJob; nothing hangs for ever."""
    cron = objects["CronJob"]["spec"]
    assert (cron["schedule"], cron["concurrencyPolicy"]) == ("* * * * *", "Forbid")
    assert 10 <= cron["startingDeadlineSeconds"] < 100 * 60, "100 missed starts within it stop the CronJob"
    assert cron["successfulJobsHistoryLimit"] >= 1
    assert cron["failedJobsHistoryLimit"] >= 1
    assert 0 < job["activeDeadlineSeconds"] <= 3600
    assert pod["restartPolicy"] == "Never", "podFailurePolicy needs it"


def test_a_pod_has_time_to_write_what_it_received(pod: dict[str, Any]) -> None:
    """The last flush after SIGTERM ends before Kubernetes kills the process."""
    assert pod["terminationGracePeriodSeconds"] >= run._GRACE + run._LAST_RECORD + 4


def test_the_pod_may_do_nothing_it_does_not_need(
    objects: dict[str, Any], pod: dict[str, Any], container: dict[str, Any]
) -> None:
    """The restricted profile is asked for and kept, and the pod gets no token and no variables of Services."""
    levels = {
        objects["Namespace"]["metadata"]["labels"][f"pod-security.kubernetes.io/{m}"] for m in ("enforce", "warn")
    }
    assert levels == {"restricted"}
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == _user()
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert {name for volume in pod["volumes"] for name in volume} == {"name", "configMap", "secret"}
    assert pod["automountServiceAccountToken"] is False
    assert objects["ServiceAccount"]["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    assert pod["enableServiceLinks"] is False
    assert {"requests", "limits"} <= set(container["resources"])


def test_secret_files_are_readable_by_the_group_alone(pod: dict[str, Any]) -> None:
    """Root owns the files; the pod's group reads them; nobody writes them."""
    (mode,) = (volume["secret"]["defaultMode"] for volume in pod["volumes"] if "secret" in volume)
    assert mode == 0o440


def test_the_network_policy_leaves_only_the_way_out(
    objects: dict[str, Any], job: dict[str, Any], cluster_settings: Settings
) -> None:
    """It applies to the run's pods, lets nothing in, and lets out names, the API and the configured ClickHouse."""
    policy = objects["NetworkPolicy"]["spec"]
    labels = job["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy
    ports = {(port["protocol"], port["port"]) for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {("UDP", 53), ("TCP", 53), ("TCP", 443), ("TCP", 8443), ("TCP", 8123)}
    assert ("TCP", int(cluster_settings.clickhouse_url.rpartition(":")[2].partition("/")[0])) in ports


def _instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, continued lines joined, comments gone."""
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined if line.strip())]


def _user() -> int:
    (user,) = (rest for name, rest in _instructions() if name == "USER")
    number, _, group = user.partition(":")
    assert number == group
    return int(number)


def test_the_image_runs_shipper_as_a_numbered_user() -> None:
    """Two stages from one pinned base; the last one has the installed environment alone and starts `shipper`."""
    instructions = _instructions()
    names = [name for name, _ in instructions]
    assert set(names) <= {"ARG", "FROM", "LABEL", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "CMD"}
    assert [rest for name, rest in instructions if name == "FROM"] == ["python:${PYTHON} AS build", "python:${PYTHON}"]
    (base,) = (rest for name, rest in instructions if name == "ARG")
    assert re.fullmatch(r"PYTHON=3\.(1[1-4])(\.\d+)?-slim-\w+", base)
    last = instructions[len(names) - names[::-1].index("FROM") :]
    assert [rest for name, rest in last if name == "COPY"] == ["--from=build /opt/shipper /opt/shipper"]
    assert "RUN" not in {name for name, _ in last}
    assert ("ENTRYPOINT", '["shipper"]') in last
    assert _user() > 0
    assert [name for name, _ in last].index("USER") < [name for name, _ in last].index("ENTRYPOINT")


def test_the_image_has_no_extra_and_no_secret() -> None:
    """It is the bare install in the locked versions; no instruction names a key, a password or a token."""
    commands = " ".join(rest for name, rest in _instructions() if name == "RUN")
    assert "embedded" not in commands
    assert "--constraint /dist/constraints.txt /dist/*.whl" in commands
    everything = " ".join(f"{name} {rest}" for name, rest in _instructions())
    assert not re.search(r"(?i)key|password|token|secret", everything)


def test_the_build_sees_only_what_it_copies() -> None:
    """.dockerignore lets in exactly what the Dockerfile copies: no data, no history, no secret lies in the context."""
    copied = {
        source
        for name, rest in _instructions()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    for source in copied:
        assert (ROOT / source).exists()


def test_the_image_tag_is_the_version(container: dict[str, Any]) -> None:
    """The manifests, the Dockerfile's example and the deploy README name this version."""
    assert container["image"] == f"openai-audit-shipper:{__version__}"
    for name in ("Dockerfile", "README.md"):
        tags = re.findall(r"openai-audit-shipper:([\d.]+\d)", (ROOT / "deploy" / name).read_text(encoding="utf-8"))
        assert set(tags) == {__version__}


@pytest.fixture(scope="module")
def lock() -> dict[str, Any]:
    return tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))


def test_a_bare_install_is_lean(lock: dict[str, Any]) -> None:
    """What the image installs, followed through the lock, has no data-frame library and no embedded database."""
    packages: dict[str, dict[str, Any]] = {package["name"]: package for package in lock["package"]}
    open_ends = [("openai-audit-shipper", frozenset[str]())]
    found = set()
    while open_ends:
        name, extras = open_ends.pop()
        if (name, extras) in found:
            continue
        found.add((name, extras))
        package = packages[name]
        needed = list(package.get("dependencies", []))
        for extra in extras:
            needed += package.get("optional-dependencies", {}).get(extra, [])
        open_ends += [(item["name"], frozenset(item.get("extra", ()))) for item in needed]
    names = {name for name, _ in found}
    assert {"aiohttp", "clickhouse-connect", "pyyaml"} <= names
    assert not {"chdb", "chdb-core", "pandas", "pyarrow", "numpy", "pytest", "mypy", "ruff"} & names


def test_the_lock_names_the_public_index_only(lock: dict[str, Any]) -> None:
    """No mirror and no path of a machine: every file comes from PyPI, and the project is the only one built here."""
    assert {json.dumps(package["source"], sort_keys=True) for package in lock["package"]} == {
        '{"registry": "https://pypi.org/simple"}',
        '{"editable": "."}',
    }
    urls = [
        file["url"]
        for package in lock["package"]
        for file in [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    ]
    assert len(urls) > 500
    assert {PurePosixPath(url).parts[1] for url in urls} == {"files.pythonhosted.org"}


def test_the_lock_is_up_to_date(lock: dict[str, Any]) -> None:
    """The requirements it was made from are the ones that pyproject.toml declares now."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (locked,) = (package["metadata"] for package in lock["package"] if "editable" in package["source"])
    wanted = [_requirement(text) for text in project["project"]["dependencies"]]
    extras = project["project"]["optional-dependencies"]
    for extra, requirements in extras.items():
        wanted += [_requirement(text, f"extra == '{extra}'") for text in requirements]
    assert sorted(_locked(item) for item in locked["requires-dist"]) == sorted(wanted)
    groups = project["dependency-groups"]
    plain = {name: [item for item in items if isinstance(item, str)] for name, items in groups.items()}
    for name, items in groups.items():
        included = [text for item in items if isinstance(item, dict) for text in plain[item["include-group"]]]
        expected = [_requirement(text) for text in [*plain[name], *included]]
        assert sorted(_locked(item) for item in locked["requires-dev"][name]) == sorted(expected)


def _requirement(text: str, marker: str = "") -> tuple[str, str, str]:
    match = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?([^;]*)", text)
    assert match, text
    return match[1].lower(), match[2], marker


def _locked(item: dict[str, Any]) -> tuple[str, str, str]:
    return item["name"], item.get("specifier", ""), item.get("marker", "")
