"""Slack: an incoming webhook, a message of Block Kit.

Limits, from https://docs.slack.dev/reference/block-kit/blocks: the text of a header has 150 characters at most, that of
a section 3,000, each of its up to ten fields 2,000; a context has ten elements, a message 50 blocks. `&`, `<` and `>`
are Slack's control characters and are escaped (https://docs.slack.dev/messaging/formatting-message-text): nobody is
mentioned and nothing is linked because somebody called a project so.

What Slack answers: 200 `ok`, or 4xx with a word such as `invalid_payload`, `no_service` or `channel_is_archived`
(https://api.slack.com/changelog/2016-05-17-changes-to-errors-for-incoming-webhooks). Slack knows no key by which it
would tell a repetition: a message whose acknowledgement was lost is there twice.
"""

from __future__ import annotations

from typing import Any

from shipper.detect.alerts.text import fit, one_line, several, summary, units
from shipper.detect.findings import Finding
from shipper.model import iso

HEADER = 150
SECTION = 3000
FIELDS = 10
FIELD = 2000
BLOCKS = 50

# Shorter than allowed: a message is read.
_LIST = 400
_FALLBACK = 1000


def escape(text: str) -> str:
    """The text as mrkdwn shows it: Slack's three control characters replaced."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def payload(finding: Finding) -> dict[str, Any]:
    """The message about a finding."""
    fields = (
        ("Severity", f"{finding.severity}, risk {finding.risk_score}"),
        ("Rule", finding.rule),
        ("About", finding.entity),
        ("Events", f"{finding.count:,}"),
        ("First seen", iso(finding.first_seen)),
        ("Last seen", iso(finding.last_seen)),
        ("Actors", several(finding.actors, _LIST, _cost)),
        ("Addresses", several(finding.src_ips, _LIST, _cost)),
        ("Event types", several(finding.event_types, _LIST, _cost)),
        ("MITRE ATT&CK", several((*finding.tactics, *finding.techniques), _LIST, _cost)),
    )
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {
                "type": "plain_text",
                "text": fit(f"[{finding.severity.upper()}] {one_line(finding.title)}", HEADER),
                "emoji": False,
            },
        },
        {"type": "section", "fields": [_field(name, value) for name, value in fields]},
    ]
    for name, values in (("What happened", finding.details), ("Acted on", finding.resources)):
        if values:
            blocks.append(_listing(name, values))
    blocks.append({"type": "context", "elements": [_mrkdwn(_code(f"shipper findings show {finding.id}", FIELD))]})
    return {
        "text": escape(fit(summary(finding), _FALLBACK, _cost)),
        "blocks": blocks,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _cost(text: str) -> int:
    return units(escape(text))


def _mrkdwn(text: str) -> dict[str, Any]:
    # Verbatim: an address or a name that looks like a link or a channel is not made one.
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _field(name: str, value: str) -> dict[str, Any]:
    return _mrkdwn(f"*{escape(name)}*\n{_code(value, FIELD - units(escape(name)) - 5)}")


def _code(value: str, limit: int) -> str:
    """The value as code, in which `*`, `_`, `~` and `:smile:` are characters like others; only a backtick ends it."""
    shown = fit(one_line(value).replace("`", "'"), limit, _cost)
    return f"`{escape(shown)}`" if shown else "-"


def _listing(name: str, values: tuple[str, ...]) -> dict[str, Any]:
    frame = f"*{name}*\n```\n\n```"
    lines = several(values, SECTION - units(frame), _cost, between="\n").replace("`", "'")
    return {"type": "section", "text": _mrkdwn(f"*{name}*\n```\n{escape(lines)}\n```")}
