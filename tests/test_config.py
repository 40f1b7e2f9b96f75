"""Settings: where they come from, who wins, what is refused, and that secrets stay secret."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from shipper.config import Settings
from shipper.durations import format_duration, parse_duration, parse_moment
from shipper.errors import ConfigError, ExitCode, UsageError
from shipper.secret_text import read_secret
from shipper.settings_file import environment_name, load_settings
from tests.secrets_scan import canary

KEY = canary("config")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SHIPPER_", "OPENAI_")):
            monkeypatch.delenv(name)


def config_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "shipper.yaml"
    path.write_text(text)
    return path


def test_nothing_needs_to_be_set() -> None:
    """Without file and environment there is one source, the embedded database and the documented defaults."""
    settings = load_settings()
    (source,) = settings.all_sources()
    assert (source.id, source.workspace, source.base_url) == ("openai", "default", "https://api.openai.com/v1")
    assert settings.clickhouse_url == "chdb:shipper-data"
    assert settings.overlap == timedelta(hours=1)


def test_one_source_comes_from_the_sdk_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The official SDK's environment names describe the single source."""
    key_file = tmp_path / "admin-key"
    key_file.write_text(KEY + "\n")
    monkeypatch.setenv("OPENAI_ADMIN_KEY_FILE", str(key_file))
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("SHIPPER_SOURCE_ID", "acme")
    monkeypatch.setenv("SHIPPER_WORKSPACE", "security")
    (source,) = load_settings().all_sources()
    assert source.read_admin_key().get_secret_value() == KEY
    assert (source.organization, source.base_url) == ("org-1", "http://127.0.0.1:1/v1")
    assert (source.source.source_id, source.source.workspace_id) == ("acme", "security")


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = config_file(tmp_path, "overlap: 2h\nwindow: 2h\nbatch_rows: 7\nbase_url: http://file/v1\n")
    monkeypatch.setenv("SHIPPER_OVERLAP", "3h")
    monkeypatch.setenv("SHIPPER_WINDOW", "3h")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://environment/v1")
    settings = load_settings(path, {"overlap": "4h"})
    assert settings.overlap == timedelta(hours=4)
    assert settings.window == timedelta(hours=3)
    assert settings.batch_rows == 7
    assert settings.base_url == "http://environment/v1"


def test_the_file_can_be_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHIPPER_CONFIG", str(config_file(tmp_path, "batch_rows: 9\n")))
    assert load_settings().batch_rows == 9


def test_generic_names_of_the_environment_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """BASE_URL or WORKSPACE without our prefix belong to somebody else."""
    monkeypatch.setenv("BASE_URL", "http://elsewhere")
    monkeypatch.setenv("WORKSPACE", "elsewhere")
    monkeypatch.setenv("ADMIN_KEY", "elsewhere")
    settings = load_settings()
    assert (settings.base_url, settings.workspace, settings.admin_key) == ("https://api.openai.com/v1", "default", None)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("batch_row: 1", "unknown setting 'batch_row'", "Did you mean 'batch_rows'?"),
        ("zzz: 1", "unknown setting 'zzz'", "`shipper config show` lists every setting."),
        ("sources: [{id: a, adminkey: THE-KEY}]", "sources.0.adminkey: unknown setting. Did you mean", ""),
        ("overlap: soon", "overlap: expected a duration such as 90s", ""),
        ("overlap: 0s", "overlap: must be at least 1s", ""),
        ("clickhouse_url: ftp://x", "clickhouse_url: expected http://", ""),
        ("clickhouse_url: 'chdb:'", "clickhouse_url: expected http://", ""),
        ("sources: [{id: a}, {id: a}]", "two sources are both called ('default', 'a')", ""),
        ("{admin_key:THE-KEY}", "unknown setting 'admin_key'", "Did you mean 'admin_key'?"),
        ("sources: [{id: a, admin_key:THE-KEY}]", "sources.0.admin_key: unknown setting", ""),
        ("admin_key: 0x_", "not valid YAML", ""),
        ("a: 2024-13-45", "not valid YAML", ""),
        ("- a\n- b", "expected settings as `name: value`, got a list", ""),
        ("admin_key: 'THE-KEY\nx: ]", "not valid YAML", ""),
        ("requests_per_second: 0", "requests_per_second: Input should be greater than 0", ""),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_place(tmp_path: Path, text: str, message: str, hint: str) -> None:
    """The message names the file and the setting, never a value."""
    path = config_file(tmp_path, text.replace("THE-KEY", KEY))
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    path.unlink()
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.hint == hint
    assert KEY not in str(caught.value)
    assert caught.value.exit_code is ExitCode.CONFIG


def test_an_unknown_name_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPPER_CLICKHUSE_URL", "x")
    with pytest.raises(ConfigError, match="SHIPPER_CLICKHUSE_URL") as caught:
        load_settings()
    assert caught.value.hint == "Did you mean 'SHIPPER_CLICKHOUSE_URL'?"


def test_what_kubernetes_puts_into_the_environment_is_not_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service called `shipper` makes variables with our prefix in every pod."""
    monkeypatch.setenv("SHIPPER_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("SHIPPER_PORT", "tcp://10.0.0.1:80")
    monkeypatch.setenv("SHIPPER_PORT_80_TCP_ADDR", "10.0.0.1")
    assert load_settings().batch_rows == 8_000


def test_lists_of_objects_in_the_environment_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPPER_SOURCES", "a,b")
    with pytest.raises(ConfigError, match="sources") as caught:
        load_settings()
    assert caught.value.hint == "Lists of objects belong in the YAML file."


def test_paths_are_separated_like_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPPER_GEOIP_DATABASES", f"a.mmdb{os.pathsep}b.mmdb")
    assert load_settings().geoip_databases == (Path("a.mmdb"), Path("b.mmdb"))


@pytest.mark.parametrize("content", [None, "", "two words", "\x00", b"\xff\xfe"])
def test_a_secret_file_that_holds_no_secret_is_refused(tmp_path: Path, content: str | bytes | None) -> None:
    """Missing, empty, with blanks, not text: a clear error with the path and without the content."""
    path = tmp_path / "secret"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=str(path)) as caught:
        read_secret(path, what="the admin key")
    assert "two words" not in str(caught.value)


def test_a_missing_key_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = load_settings().all_sources()
    with pytest.raises(ConfigError, match="no admin key for source 'openai'") as caught:
        source.read_admin_key()
    assert "OPENAI_ADMIN_KEY_FILE" in caught.value.hint
    assert "shipper demo" in caught.value.hint
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-a b")
    with pytest.raises(ConfigError, match="holds a blank"):
        load_settings().all_sources()[0].read_admin_key()


@pytest.mark.parametrize("url", ["http://user@host:8123/db", "http://user:old@host:8123/db"])
def test_the_password_comes_from_a_file(tmp_path: Path, url: str) -> None:
    """A password with special characters is encoded into the URL that the driver gets, and nowhere else."""
    (tmp_path / "password").write_text("p@ss/word:%\n")
    settings = load_settings(overrides={"clickhouse_url": url, "clickhouse_password_file": tmp_path / "password"})
    full = settings.clickhouse_url_with_password().get_secret_value()
    assert full == "http://user:p%40ss%2Fword%3A%25@host:8123/db"
    assert "p%40ss" not in f"{settings!r}{settings.public()}"


def test_the_embedded_database_has_no_password() -> None:
    settings = load_settings(overrides={"clickhouse_url": "chdb:here", "clickhouse_password": "x"})
    assert settings.clickhouse_url_with_password().get_secret_value() == "chdb:here"


def test_no_secret_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the representation nor what `config show` prints holds a key or a password."""
    monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
    monkeypatch.setenv("SHIPPER_CLICKHOUSE_URL", "http://u:hunter2@h:8123/db")
    monkeypatch.setenv("SHIPPER_CLICKHOUSE_PASSWORD", "hunter3")
    monkeypatch.setenv("SHIPPER_PROXY", "http://p:hunter4@proxy:3128")
    settings = load_settings(overrides={"sources": [{"id": "a", "admin_key": KEY}]})
    shown = yaml.safe_dump(settings.public())
    for text in (repr(settings), str(settings), shown):
        assert KEY not in text
        assert "hunter" not in text
    public = settings.public()
    assert public["sources"][0]["admin_key"] == public["clickhouse_password"] == "<SECRET>"
    assert load_settings().public()["admin_key"] == "<SECRET>"
    assert public["clickhouse_url"] == "http://u:<SECRET>@h:8123/db"
    assert public["proxy"] == "http://p:<SECRET>@proxy:3128"


def test_what_config_show_prints_is_a_valid_file(tmp_path: Path) -> None:
    """Round trip: the printed YAML gives the same settings."""
    settings = Settings()
    printed = yaml.safe_dump(settings.public())
    assert load_settings(config_file(tmp_path, printed)) == settings


def test_every_setting_has_help_and_an_environment_name_of_its_own() -> None:
    names = [environment_name(field) for field in Settings.model_fields]
    assert len(set(names)) == len(names)
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("30d", 2_592_000), ("2w", 1_209_600)]
)
def test_durations_round_trip(text: str, seconds: int) -> None:
    duration = parse_duration(text)
    assert duration == timedelta(seconds=seconds)
    assert parse_duration(format_duration(duration)) == duration
    assert parse_duration(duration) is duration


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-02", 86_400),
        ("1970-01-02T00:00:00Z", 86_400),
        ("1970-01-02T02:00:00+02:00", 86_400),
        ("1970-01-02 00:00", 86_400),
        ("19700102", 86_400),
        ("1d", 1_000_000 - 86_400),
    ],
)
def test_moments_are_utc_unless_they_name_a_zone(text: str, moment: int) -> None:
    assert parse_moment(text, 1_000_000) == moment


@pytest.mark.parametrize(
    "text", ["yesterday", "", "2026", "1960-01-01", "2200-01-01", "40d", "9999999999d", "2000w", "d"]
)
def test_what_is_no_moment_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_moment(text, 1_000_000)
