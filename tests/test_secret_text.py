"""What is shown of text that holds secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipper.errors import ConfigError
from shipper.secret_text import redact_url
from shipper.settings_file import load_settings


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host:8443/db", "https://host:8443/db"),
        ("http://user@host/db", "http://user@host/db"),
        ("http://user:hunter2@host:8123/db", "http://user:<SECRET>@host:8123/db"),
        ("user:hunter2@proxy:3128", "user:<SECRET>@proxy:3128"),
        ("http://user:hun/ter2@host/db", "http://user:<SECRET>@host/db"),
        ("http://user:hun#ter2@host/db", "http://user:<SECRET>@host/db"),
        ("http://user:hun@ter2@host/db", "http://user:<SECRET>@host/db"),
        ("http://user:hunter2@h\u2100:8123/db", "http://user:<SECRET>@h\u2100:8123/db"),
        ("http://host/db?password=hunter2&max_threads=3", "http://host/db?password=<SECRET>&max_threads=3"),
        ("http://host/db?Access_Token=hunter2", "http://host/db?Access_Token=<SECRET>"),
    ],
)
def test_a_password_does_not_show_wherever_it_is(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "http://u:hunter2@h\u2100:8123/db",
        "http://u:hun/ter2@h/db",
        "http://u:hun@ter2@h/db",
        "http://u:hunter2@:8123/db",
        "http://u:hunter2@host:port/db",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match="clickhouse_url: is not a URL") as caught:
        load_settings(overrides={"clickhouse_url": url})
    assert "hun" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_single_source_settings_beside_sources_are_refused(tmp_path: Path) -> None:
    """They would do nothing, and nobody would notice."""
    path = tmp_path / "c.yaml"
    path.write_text("retention_days: 400\nsources: [{id: a}]\n")
    with pytest.raises(ConfigError, match="retention_days describes a single source") as caught:
        load_settings(path)
    assert caught.value.hint == "Say it in the entries of `sources`: retention_days."


def test_a_secret_in_the_environment_wins_over_the_files_way_to_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key file named in the YAML does not beat a key in the environment."""
    path = tmp_path / "c.yaml"
    path.write_text("admin_key_file: /nowhere\n")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-from-the-environment")
    (source,) = load_settings(path).all_sources()
    assert source.read_admin_key().get_secret_value() == "sk-admin-from-the-environment"


def test_a_typo_in_a_source_is_not_explained_with_the_names_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("sources: [{id: a, pth: x}]\n")
    with pytest.raises(ConfigError, match="shipper config show"):
        load_settings(path)
