"""Rules and findings in words: `detect --explain`, `findings show`, and the catalogue in docs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from shipper.detect.attack import TACTICS, TECHNIQUES
from shipper.detect.findings import Finding
from shipper.detect.rule import Rule
from shipper.durations import format_duration
from shipper.model import iso

# Of a list, in what a person reads.
_SHOWN = 12


def explain(rule: Rule) -> str:
    """All about a rule, as plain text."""
    lines = [
        f"{rule.title} ({rule.id})",
        f"{rule.severity}, risk {rule.risk}; one finding per {rule.entity} and {_bucket(rule)}",
        "",
        rule.description,
        "",
        *_listed("MITRE ATT&CK", map(attack_name, rule.attack)),
        *_listed("Event types", sorted(rule.types) or ["any, or none: it reads other tables or every type"]),
        *_listed("Runbook", rule.runbook, numbered=True),
        *_listed("False positives", rule.false_positives),
        *_listed("Blind spots", rule.blind_spots),
        *_listed("Parameters", map(_parameter, [rule] * len(rule.parameters), rule.parameters)),
        f"SQL ({rule.path.with_suffix('.sql').name})",
        "",
        *(f"  {line}" if line else "" for line in rule.sql.splitlines()),
    ]
    return "\n".join(lines)


def _parameter(rule: Rule, name: str) -> str:
    parameter = rule.parameters[name]
    value = rule.values[name]
    changed = "" if value == parameter.default else f" (default {parameter.default})"
    return f"{name} {parameter.type} = {value}{changed}: {parameter.help}"


def attack_name(pair: str) -> str:
    """`Credential Access: Brute Force (TA0006, T1110)` of `TA0006/T1110`; a pair that is not in the table as it is."""
    tactic, _, technique = pair.partition("/")
    if tactic not in TACTICS or technique not in TECHNIQUES:
        return pair
    return f"{TACTICS[tactic]}: {TECHNIQUES[technique][0]} ({tactic}, {technique})"


def _bucket(rule: Rule) -> str:
    return format_duration(timedelta(seconds=rule.bucket))


def _listed(title: str, items: Iterable[str], *, numbered: bool = False) -> Iterator[str]:
    listed = list(items)
    if listed:
        yield title
        yield from (f"  {f'{number}.' if numbered else '-'} {item}" for number, item in enumerate(listed, 1))
        yield ""


def told(finding: Finding, rule: Rule | None) -> list[str]:
    """A finding for whoever has to act on it, line by line: what it holds may hold line ends. `rule` may be gone."""
    seen = iso(finding.first_seen) + (f" to {iso(finding.last_seen)}" if finding.last_seen > finding.first_seen else "")
    lines = [
        f"{finding.title}",
        f"{finding.severity}, risk {finding.risk_score}, rule {finding.rule}, finding {finding.id}",
        "",
        f"About:     {finding.entity}",
        f"Workspace: {finding.workspace_id}",
        f"When:      {seen}, {finding.count:,} event{'' if finding.count == 1 else 's'}",
        f"Found:     {iso(finding.first_detected_at // 1000)}, last added to {iso(finding.last_detected_at // 1000)}",
    ]
    if finding.acknowledged_at:
        note = f": {finding.note}" if finding.note else ""
        lines.append(f"Seen by:   {finding.acknowledged_by}, {iso(finding.acknowledged_at // 1000)}{note}")
    lines.append("")
    for title, items in (
        ("Who", finding.actors),
        ("From", finding.src_ips),
        ("Event types", finding.event_types),
        ("On what", finding.resources),
        ("Details", finding.details),
        ("MITRE ATT&CK", [attack_name(pair) for pair in rule.attack] if rule else finding.techniques),
        ("What to do", rule.runbook if rule else ()),
    ):
        lines += _listed(title, _cut(items), numbered=title == "What to do")
    if not finding.rule.startswith("health_"):
        lines += ["Its events", *(f"  {line}" for line in proof_query(finding).splitlines())]
    return lines


def _cut(items: Sequence[str]) -> list[str]:
    more = len(items) - _SHOWN
    return [*items[:_SHOWN], *([f"… and {more:,} more"] if more > 0 else [])]


def proof_query(finding: Finding) -> str:
    """SQL that shows the events of a finding, by way of the table's sort key."""
    return f"""SELECT eventTime, eventType, actorUserEmail, srcIP, srcASCountryCode, resources
FROM openai_audit_logs
WHERE (workspaceID, sourceID, eventTime, id) IN
    (SELECT workspaceID, event.sourceID, event.eventTime, event.id
     FROM openai_audit_findings ARRAY JOIN events AS event WHERE findingID = '{finding.id}')
ORDER BY eventTime"""  # noqa: S608 - an id is hexadecimal


def catalogue(rules: Sequence[Rule]) -> str:
    """The rules as a page of Markdown."""
    rows = [
        f"| [`{rule.id}`](#{rule.id}) | {rule.title} | {rule.severity} | {rule.risk} | "
        f"{', '.join(rule.techniques) or '-'} |"
        for rule in rules
    ]
    parts = ["| rule | finds | severity | risk | ATT&CK |", "|---|---|---|---|---|", *rows, ""]
    for rule in rules:
        parts += [
            f"## {rule.id}",
            "",
            f"**{rule.title}** ({rule.severity}, risk {rule.risk}). One finding per {rule.entity} and {_bucket(rule)}.",
            "",
            rule.description,
            "",
        ]
        for title, items, mark in (
            ("MITRE ATT&CK", [attack_name(pair) for pair in rule.attack], "-"),
            ("Event types", [f"`{name}`" for name in sorted(rule.types)], "-"),
            ("Runbook", rule.runbook, "1."),
            ("False positives", rule.false_positives, "-"),
            ("Blind spots", rule.blind_spots, "-"),
            (
                "Parameters",
                [
                    f"`{name}` ({one.type}, default `{one.default}`): {one.help}"
                    for name, one in rule.parameters.items()
                ],
                "-",
            ),
        ):
            if items:
                parts += [f"{title}:", "", *(f"{mark} {item}" for item in items), ""]
    return "\n".join(parts)
