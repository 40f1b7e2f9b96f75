"""List files: their two formats, and a refusal that names the place for every mistake."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
import yaml

from shipper.enrich.rules import Field, Kind, Rule, read_rules
from shipper.errors import ConfigError

YAML = """\
# offices and known bad addresses
- {field: src.ip, exact: 2001:DB8::1, data: {site: hq, floor: 07, vpn: yes}}
- field: src.ip
  cidr: 198.18.0.0/15
- field: actor.email
  regex: '@example\\.com$'
  data:
    team: 2026-01-01
- {field: actor.id, exact: user-1}
- {field: src.ip, cidr: "::ffff:10.0.0.0/104", data: }
- {field: src.ip, cidr: 2001:db8::/32, data: {}}
"""

NDJSON = """\
{"field": "src.ip", "exact": "2001:DB8::1", "data": {"site": "hq", "floor": "07", "vpn": "yes"}}
{"field": "src.ip", "cidr": "198.18.0.0/15"}

{"field": "actor.email", "regex": "@example\\\\.com$", "data": {"team": "2026-01-01"}}
{"field": "actor.id", "exact": "user-1", "data": null}
{"field": "src.ip", "cidr": "::ffff:10.0.0.0/104", "data": {}}
{"field": "src.ip", "cidr": "2001:db8::/32"}
"""

RULES = [
    Rule(Field.SRC_IP, Kind.EXACT, "2001:DB8::1", "2001:db8::1", {"site": "hq", "floor": "07", "vpn": "yes"}),
    Rule(Field.SRC_IP, Kind.CIDR, "198.18.0.0/15", IPv4Network("198.18.0.0/15"), {}),
    Rule(
        Field.ACTOR_EMAIL,
        Kind.REGEX,
        r"@example\.com$",
        re.compile(r"@example\.com$", re.IGNORECASE),
        {"team": "2026-01-01"},
    ),
    Rule(Field.ACTOR_ID, Kind.EXACT, "user-1", "user-1", {}),
    Rule(Field.SRC_IP, Kind.CIDR, "::ffff:10.0.0.0/104", IPv4Network("10.0.0.0/8"), {}),
    Rule(Field.SRC_IP, Kind.CIDR, "2001:db8::/32", IPv6Network("2001:db8::/32"), {}),
]


def write(folder: Path, text: str | bytes, name: str = "list.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [("l.yaml", YAML), ("l.yml", YAML), ("l.ndjson", NDJSON), ("l.jsonl", NDJSON), ("l.yaml", "\ufeff" + YAML)],
)
def test_both_formats_give_the_same_rules(tmp_path: Path, name: str, text: str) -> None:
    """YAML values are the text in the file: 07, yes and a date are not turned into something else."""
    assert read_rules(write(tmp_path, text, name)) == RULES


def test_the_python_yaml_loader_gives_the_same_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyYAML built without its C part reads the same."""
    monkeypatch.delattr(yaml, "CBaseLoader", raising=False)
    assert read_rules(write(tmp_path, YAML)) == RULES


def test_an_alias_stands_for_its_anchor(tmp_path: Path) -> None:
    """The same keys for several rules are written once."""
    text = "- {field: actor.id, exact: u, data: &hq {site: hq}}\n- {field: actor.id, exact: v, data: *hq}\n"
    assert [rule.data for rule in read_rules(write(tmp_path, text))] == [{"site": "hq"}, {"site": "hq"}]


def test_ndjson_scalars_become_text(tmp_path: Path) -> None:
    """Numbers and booleans keep their JSON form, null is empty."""
    line = '{"field": "actor.id", "exact": "u", "data": {"a": 1, "b": 1.5, "c": true, "d": null, "e": "x"}}'
    assert read_rules(write(tmp_path, line, "l.ndjson"))[0].data == {
        "a": "1",
        "b": "1.5",
        "c": "true",
        "d": "",
        "e": "x",
    }


@pytest.mark.parametrize(("name", "text"), [("l.yaml", "[]"), ("l.ndjson", ""), ("l.ndjson", "\n\n")])
def test_a_list_without_rules_is_a_list(tmp_path: Path, name: str, text: str) -> None:
    """A blocklist may be empty."""
    assert read_rules(write(tmp_path, text, name)) == []


@pytest.mark.parametrize(
    ("entry", "message", "hint"),
    [
        ("{feild: src.ip, exact: 8.8.8.8}", "unknown key 'feild'", "Did you mean field?"),
        (
            "{field: src.ip, exact: 8.8.8.8, zzzz: 1}",
            "unknown key 'zzzz'",
            "A rule has field, data, exact, cidr, regex.",
        ),
        ("{field: src.ipp, exact: 8.8.8.8}", "unknown field 'src.ipp'", "Did you mean src.ip?"),
        ("{exact: 8.8.8.8}", "unknown field 'None'", "A field is one of src.ip, actor.email, actor.id."),
        ("{field: [src.ip], exact: 8.8.8.8}", "unknown field \"['src.ip']\"", "Did you mean src.ip?"),
        ("{field: src.ip}", "expected one of exact, cidr and regex, got none", ""),
        (
            "{field: src.ip, exact: 8.8.8.8, cidr: 8.8.8.0/24}",
            "expected one of exact, cidr and regex, got exact and cidr",
            "",
        ),
        ("{field: src.ip, exact: }", "exact: expected text", ""),
        ("{field: src.ip, exact: [8.8.8.8]}", "exact: expected text", ""),
        ("{field: src.ip, exact: 010.8.8.8}", "exact: '010.8.8.8' is not an IP address", "For a network, write cidr."),
        (
            "{field: src.ip, exact: 8.8.8.0/24}",
            "exact: '8.8.8.0/24' is not an IP address",
            "For a network, write cidr.",
        ),
        (
            "{field: src.ip, cidr: 8.8.8.8/24}",
            "cidr: 8.8.8.8/24 has host bits set",
            "Write a network such as 198.18.0.0/15 or 2001:db8::/32.",
        ),
        (
            "{field: src.ip, cidr: 8.8.8.0/33}",
            "cidr: '8.8.8.0/33' does not appear to be an IPv4 or IPv6 network",
            "Write a network such as 198.18.0.0/15 or 2001:db8::/32.",
        ),
        ("{field: actor.email, cidr: 8.8.8.0/24}", "cidr is for src.ip, not for actor.email", ""),
        (
            "{field: actor.id, regex: '(user'}",
            "regex: '(user' does not compile: missing ), unterminated subpattern at position 0",
            "",
        ),
        ("{field: actor.id, exact: u, data: text}", "data: expected keys and values", ""),
        ("{field: actor.id, exact: u, data: [a]}", "data: expected keys and values", ""),
        ("{field: actor.id, exact: u, data: {a: [1]}}", "data: a: expected one value, got a list or a map", ""),
        ("{field: actor.id, exact: u, data: {a: {b: c}}}", "data: a: expected one value, got a list or a map", ""),
        ("just text", "expected a rule such as {field: src.ip, exact: 192.0.2.1}", ""),
    ],
)
def test_a_mistake_is_refused_with_file_and_entry(tmp_path: Path, entry: str, message: str, hint: str) -> None:
    """The first rule is fine, the second is not: the error names the second, and what to write instead."""
    path = write(tmp_path, f"- {{field: actor.id, exact: user-1}}\n- {entry}\n")
    with pytest.raises(ConfigError) as caught:
        read_rules(path)
    assert (str(caught.value), caught.value.hint) == (f"list {path}, entry 2: {message}", hint)


@pytest.mark.parametrize("pattern", ["a{99999999999999999999}", "(" * 5000 + ")" * 5000])
def test_a_regex_that_the_compiler_cannot_take_is_refused(tmp_path: Path, pattern: str) -> None:
    """Too many repeats and too many groups are a mistake of the list, not a crash."""
    path = write(tmp_path, f"- {{field: actor.id, regex: '{pattern}'}}\n")
    with pytest.raises(ConfigError, match=r"entry 1: regex: .* does not compile"):
        read_rules(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"field": "actor.id", "exact": 7}', "line 3: exact: expected text"),
        ('{"field": "actor.id", ', "line 3: not valid JSON"),
        ("[1]", "line 3: expected a rule such as {field: src.ip, exact: 192.0.2.1}"),
    ],
)
def test_a_mistake_in_ndjson_is_refused_with_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    """Blank lines count: the number is the one an editor shows."""
    path = write(tmp_path, f'{{"field": "actor.id", "exact": "u"}}\n\n{line}\n', "l.ndjson")
    with pytest.raises(ConfigError) as caught:
        read_rules(path)
    assert str(caught.value) == f"list {path}, {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": expected a list of rules, got nothing"),
        ("field: src.ip", ": expected a list of rules, got a map"),
        ("sk-admin-key", ": expected a list of rules, got a text"),
        ("- a\n- {field: src.ip]", ", line 2: not valid YAML"),
        ("- a\n- {field: src.ip, exact: 8.8.8.8, exact: 9.9.9.9}", ", line 2: the same key twice"),
        ("- !!python/object:os.system {}", ", entry 1: unknown field 'None'"),
        ("\x00", ": not valid YAML"),
        ("[" * 100_000, ", line 1: nested too deep"),
        ("- [[[[[[[x]]]]]]]", ", entry 1: expected a rule such as {field: src.ip, exact: 192.0.2.1}"),
        ("- [[[[[[[[x]]]]]]]]", ", line 1: nested too deep"),
        ("- &a [*a]", ", line 1: an alias without its anchor"),
        ("- {[a]: b}", ", line 1: a key that is not text"),
        ("[]\n---\n- {field: actor.id, exact: u}", ", line 3: a second document"),
    ],
)
def test_a_file_that_is_no_list_is_refused_without_quoting_it(tmp_path: Path, text: str, message: str) -> None:
    """The file may be one that was not meant, a key say: the error gives the place and never the content."""
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_rules(path)
    assert str(caught.value) == f"list {path}{message}"
    assert "sk-admin" not in str(caught.value) + caught.value.hint


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Missing, a directory, not text, and a name that tells no format."""
    cases = {
        tmp_path / "none.yaml": "No such file or directory",
        tmp_path: "Is a directory",
        write(tmp_path, b"\xff\xfe", "binary.yaml"): "it is not UTF-8 text",
        write(tmp_path, "[]", "list.csv"): "expected a name that ends in .yaml, .yml, .ndjson or .jsonl",
    }
    for path, reason in cases.items():
        with pytest.raises(ConfigError) as caught:
            read_rules(path)
        assert str(caught.value) == f"cannot read the list {path}: {reason}"
