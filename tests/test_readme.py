"""The README against the product: every command's help, every setting, every exit code, every metric.

`REGENERATE_README=1 pytest tests/test_readme.py` rewrites the generated parts; read the difference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from shipper.cli.app import build
from shipper.config import ListSettings, Settings, SourceSettings
from shipper.detection_settings import RouteSettings, RuleSettings, SuppressionSettings
from shipper.durations import format_duration
from shipper.errors import ExitCode
from shipper.metrics.table import METRICS
from shipper.settings_file import environment_name

README = Path(__file__).parent.parent / "README.md"

ENTRIES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("sources[]", SourceSettings),
    ("lists[]", ListSettings),
    ("rules.ID", RuleSettings),
    ("suppressions[]", SuppressionSettings),
    ("alert_routes[]", RouteSettings),
)

_MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.USAGE: "the command line asks for something that cannot be done",
    ExitCode.DATAERR: "an archive is not what it should be",
    ExitCode.UNAVAILABLE: "the API or ClickHouse stayed unavailable through every retry",
    ExitCode.SOFTWARE: "a bug, or an accounting that does not close",
    ExitCode.TEMPFAIL: "try again later; partial progress is kept",
    ExitCode.NOPERM: "the API refused the key, or ClickHouse the user",
    ExitCode.CONFIG: "a setting or the schema is wrong",
}


def commands() -> list[tuple[str, ...]]:
    """Every command and group, as the words that call it."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        if isinstance(command, TyperGroup):
            for name in command.list_commands(context):
                yield from walk(command.get_command(context, name), (*words, name))

    whole: Any = get_command(build())
    context = whole.make_context("shipper", ["config"])
    return list(walk(whole, ()))


def help_of(words: tuple[str, ...]) -> str:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(build(), [*words, "--help"], prog_name="shipper")
    assert result.exit_code == 0
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def helps() -> str:
    return "\n\n".join(
        f"```console\n$ {' '.join(('shipper', *words))} --help\n{help_of(words)}\n```" for words in commands()
    )


def default_of(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "(required)"
    value = field.get_default()
    if hasattr(value, "total_seconds"):
        return f"`{format_duration(value)}`"
    return "" if value in (None, (), {}) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def settings() -> str:
    lines = ["| setting | environment | default | |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        file_only = name in {"sources", "lists", "rules", "rule_parameters", "suppressions", "alert_routes"}
        environment = "" if file_only else f"`{environment_name(name)}`"
        lines.append(f"| `{name}` | {environment} | {default_of(Settings, name)} | {field.description} |")
    for prefix, model in ENTRIES:
        for name, field in model.model_fields.items():
            lines.append(f"| `{prefix}.{name}` | | {default_of(model, name)} | {field.description} |")
    return "\n".join(lines)


def exit_codes() -> str:
    rows = [f"| {code.value} | {_MEANINGS[code]} |" for code in ExitCode]
    return "\n".join(["| code | meaning |", "|---|---|", *rows])


def metrics() -> str:
    rows = [
        f"| `{metric.name}` | {metric.kind.__name__.lower()} | {', '.join(metric.labels)} | {metric.help} |"
        for metric in METRICS
    ]
    return "\n".join(["| metric | type | labels | |", "|---|---|---|---|", *rows])


GENERATED = {"commands": helps, "settings": settings, "exit codes": exit_codes, "metrics": metrics}


@pytest.mark.parametrize("part", GENERATED)
def test_a_generated_part_is_what_the_code_says(part: str) -> None:
    """The text between the markers is the text that the code gives."""
    wanted = f"<!-- {part}: generated -->\n\n{GENERATED[part]()}\n\n<!-- end -->"
    text = README.read_text()
    pattern = re.compile(rf"<!-- {part}: generated -->.*?<!-- end -->", re.DOTALL)
    found = pattern.search(text)
    assert found is not None
    if os.environ.get("REGENERATE_README"):
        README.write_text(pattern.sub(lambda _: wanted, text))
    else:
        assert found[0] == wanted


def test_every_command_has_help_for_itself_and_each_option() -> None:
    """A summary of one short sentence, and a text for every option and argument."""
    for words in commands():
        text = help_of(words)
        summary = text.splitlines()[2].strip()
        assert summary.endswith((".", ":")), words
        for line in re.findall(r"^  (-\S+.*)$", text, re.MULTILINE):
            assert re.search(r"\S  +\S", line) or line.endswith(">"), line


def test_links_in_the_readme_lead_to_files() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README.read_text()):
        assert (README.parent / target).exists(), target


def test_every_test_that_the_readme_names_is_there() -> None:
    """A guarantee is only as good as the test that is named for it."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", README.read_text())
    assert len(named) > 15
    for path, function in named:
        source = (README.parent / path).read_text()
        assert not function or re.search(rf"^(async )?def {function}\(", source, re.MULTILINE), (path, function)


def test_every_environment_name_in_the_readme_is_a_setting() -> None:
    known = {environment_name(name) for name in Settings.model_fields} | {"SHIPPER_CONFIG"}
    for name in re.findall(r"\b(?:SHIPPER|OPENAI)_[A-Z_]+\b", README.read_text()):
        assert name in known or name.startswith("SHIPPER_TEST_"), name


def test_every_metric_in_the_readme_is_one() -> None:
    """Those of the alerts, too."""
    named = set(re.findall(r"openai_audit_shipper_\w+", README.read_text()))
    assert named == {metric.name for metric in METRICS}
