"""What is shown of text that holds secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipper.errors import ConfigError
from shipper.masterkey import read_private
from shipper.secret_text import NOT_SHOWN_HINT, read_secret, redact_url, shown_path
from shipper.settings_file import load_settings


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host:8443/db", "https://host:8443/db"),
        ("http://user@host/db", "http://<SECRET>@host/db"),
        ("https://ghp_16C7e42F292c6912E7710c838347Ae178B4a@host", "https://<SECRET>@host"),
        ("https://ghp_16C7e42F292c6912E7710c838347Ae178B4a:x-oauth-basic@host", "https://<SECRET>@host"),
        ("https://sk_test_4eC39H:@host", "https://<SECRET>@host"),
        ("https://u%3Apw@host", "https://<SECRET>@host"),
        ("https://u%3Apw:x@host", "https://<SECRET>@host"),
        ("https://u/pw:x@host", "https://<SECRET>@host"),
        ("https://:hunter2@host", "https://<SECRET>@host"),
        ("HTTPS://hunter2@host", "HTTPS://<SECRET>@host"),
        ("//hunter2@host", "<SECRET>@host"),
        ("hunter2@host", "<SECRET>@host"),
        ("http://user:hunter2\n@host", "http://user:<SECRET>@host"),
        ("http://user:hunter2%40host:8123/db", "http://user:<SECRET>/db"),
        ("http://user:hunter2", "http://user:<SECRET>"),
        ("user:hunter2", "user:<SECRET>"),
        ("https://user:pw@host:hunter2/db", "https://user:<SECRET>@host:<SECRET>/db"),
        ("http://[::1]:8123/db", "http://[::1]:8123/db"),
        ("proxy:3128", "proxy:3128"),
        ("http://user:hunter2@host:8123/db", "http://user:<SECRET>@host:8123/db"),
        ("user:hunter2@proxy:3128", "user:<SECRET>@proxy:3128"),
        ("http://user:hun/ter2@host/db", "http://user:<SECRET>@host/db"),
        ("http://user:hun#ter2@host/db", "http://user:<SECRET>@host/db"),
        ("http://user:hun@ter2@host/db", "http://user:<SECRET>@host/db"),
        ("http://user:hunter2@h\u2100:8123/db", "http://user:<SECRET>@h\u2100:8123/db"),
        ("http://host/db?password=hunter2&max_threads=3", "http://host/db?password=<SECRET>&max_threads=3"),
        ("http://host/db?Access_Token=hunter2", "http://host/db?Access_Token=<SECRET>"),
        ("http://host/db?pwd=1234", "http://host/db?pwd=<SECRET>"),
        ("http://host/db?sig=hunter2&secure=true", "http://host/db?sig=<SECRET>&secure=true"),
        ("http://host/db?x=hunter2;y=hunter2", "http://host/db?x=<SECRET>;y=<SECRET>"),
        ("http://host/db?hunter2", "http://host/db?<SECRET>"),
        ("http://host/db?hunter2&a=1", "http://host/db?<SECRET>&a=1"),
        ("http://host/db#hunter2", "http://host/db#<SECRET>"),
        ("http://host/db#access_token=hunter2", "http://host/db#access_token=<SECRET>"),
        ("http://host/db?pin=1&n=1234567890", "http://host/db?pin=<SECRET>&n=<SECRET>"),
        ("http://host/db?user=hunter2@x&password=hunter2", "http://<SECRET>@x&password=<SECRET>"),
        ("http://host/db?password=", "http://host/db?password="),
    ],
)
def test_a_password_does_not_show_wherever_it_is(url: str, shown: str) -> None:
    assert redact_url(url) == shown


SLASHES = "Ab/" * 14 + "Ab="


@pytest.mark.parametrize("read", ["secret", "private"])
@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("hunter2", "the path given"),
        ("./hunter2", "the path given"),
        (SLASHES, "the path given"),
        ("/" + SLASHES, "a path under /"),
        ("{folder}/hunter2/x", "a path under {folder}"),
        ("hunter2" * 1000, "the path given"),
        ("hunter2\0", "the path given"),
        ("{folder}/key", "{folder}/key"),
        ("here/key", "here/key"),
        ("here", "here"),
    ],
)
def test_a_path_that_may_be_the_secret_itself_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str, given: str, shown: str
) -> None:
    """A path is shown when something is there, or when it names a folder that is there. Else the hint says why not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    path, shown = Path(given.format(folder=tmp_path)), shown.format(folder=tmp_path)
    with pytest.raises(ConfigError) as caught:
        read_secret(path, what="it") if read == "secret" else read_private(path, what="it", missing="Make one.")
    message = str(caught.value)
    hidden = shown != str(path)
    if read == "secret":
        assert message.startswith(f"cannot read it from {shown}: ")
        assert caught.value.hint == (NOT_SHOWN_HINT if hidden else "")
    else:
        assert f"it {'at ' if hidden else ''}{shown}" in message
        assert ("Make one." in caught.value.hint) == message.endswith("does not exist")
        assert (NOT_SHOWN_HINT in caught.value.hint) == hidden
    assert "hunter" not in message
    assert SLASHES not in message


def test_a_folder_that_may_not_be_entered_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a folder, so the path is one. A name without a folder stays hidden."""

    def stat(path: Path) -> object:
        if path in {Path(), Path("/run"), Path("/")}:
            return object()
        raise PermissionError

    monkeypatch.setattr(Path, "stat", stat)
    assert [shown_path(Path(path)) for path in ("/run/secrets/key", "hunter2")] == [
        "/run/secrets/key",
        "the path given",
    ]


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
