"""Rules made for a test, in a folder of its own."""

from __future__ import annotations

from pathlib import Path

from shipper.detect.rule import PACK, Rule, load

ONE_EVENT = "defence_scim_disabled"
SEVERAL_EVENTS = "signin_brute_force_success"


def text(rule: str, ending: str) -> str:
    """A file of the pack."""
    return (PACK / f"{rule}.{ending}").read_text(encoding="utf-8")


def changed(folder: Path, rule: str, *, sql: tuple[str, str] = ("", ""), toml: tuple[str, str] = ("", "")) -> Rule:
    """A rule of the pack with one thing replaced in its SQL and its TOML, each of which must be there."""
    for ending, (old, new) in (("sql", sql), ("toml", toml)):
        before = text(rule, ending)
        assert old in before, f"{rule}.{ending} has no {old!r}"
        (folder / f"{rule}.{ending}").write_text(before.replace(old, new, 1) if old else before, encoding="utf-8")
    return load(folder / f"{rule}.toml")


def written(folder: Path, name: str, sql: str, toml: str = "") -> Rule:
    """A rule of this SQL. `toml` comes first; the rest is that of the one-event rule of the pack, without types."""
    (folder / f"{name}.sql").write_text(sql, encoding="utf-8")
    rest = text(ONE_EVENT, "toml")
    start, end = rest.index("types = ["), rest.index("]", rest.index("types = [")) + 1
    (folder / f"{name}.toml").write_text(toml + rest[:start] + rest[end:], encoding="utf-8")
    return load(folder / f"{name}.toml")
