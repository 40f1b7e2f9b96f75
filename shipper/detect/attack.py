"""MITRE ATT&CK, Enterprise, version 17: the tactics, and of the techniques those that can show in this log.

Pinned, so that a rule's mapping is checked against one known table: attack.mitre.org/versions/v17. A technique names
every tactic that it serves there.
"""

from __future__ import annotations

from collections.abc import Mapping

TACTICS: Mapping[str, str] = {
    "TA0043": "Reconnaissance",
    "TA0042": "Resource Development",
    "TA0001": "Initial Access",
    "TA0002": "Execution",
    "TA0003": "Persistence",
    "TA0004": "Privilege Escalation",
    "TA0005": "Defense Evasion",
    "TA0006": "Credential Access",
    "TA0007": "Discovery",
    "TA0008": "Lateral Movement",
    "TA0009": "Collection",
    "TA0011": "Command and Control",
    "TA0010": "Exfiltration",
    "TA0040": "Impact",
}

_ACCOUNTS = ("TA0005", "TA0003", "TA0004", "TA0001")

# Id: name, tactics.
TECHNIQUES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "T1078": ("Valid Accounts", _ACCOUNTS),
    "T1078.004": ("Valid Accounts: Cloud Accounts", _ACCOUNTS),
    "T1090": ("Proxy", ("TA0011",)),
    "T1090.003": ("Proxy: Multi-hop Proxy", ("TA0011",)),
    "T1098": ("Account Manipulation", ("TA0003", "TA0004")),
    "T1098.001": ("Account Manipulation: Additional Cloud Credentials", ("TA0003", "TA0004")),
    "T1098.003": ("Account Manipulation: Additional Cloud Roles", ("TA0003", "TA0004")),
    "T1110": ("Brute Force", ("TA0006",)),
    "T1110.001": ("Brute Force: Password Guessing", ("TA0006",)),
    "T1110.003": ("Brute Force: Password Spraying", ("TA0006",)),
    "T1110.004": ("Brute Force: Credential Stuffing", ("TA0006",)),
    "T1136": ("Create Account", ("TA0003",)),
    "T1136.003": ("Create Account: Cloud Account", ("TA0003",)),
    "T1199": ("Trusted Relationship", ("TA0001",)),
    "T1213": ("Data from Information Repositories", ("TA0009",)),
    "T1484": ("Domain or Tenant Policy Modification", ("TA0005", "TA0004")),
    "T1484.002": ("Domain or Tenant Policy Modification: Trust Modification", ("TA0005", "TA0004")),
    "T1485": ("Data Destruction", ("TA0040",)),
    "T1496": ("Resource Hijacking", ("TA0040",)),
    "T1496.004": ("Resource Hijacking: Cloud Service Hijacking", ("TA0040",)),
    "T1531": ("Account Access Removal", ("TA0040",)),
    "T1537": ("Transfer Data to Cloud Account", ("TA0010",)),
    "T1539": ("Steal Web Session Cookie", ("TA0006",)),
    "T1550.004": ("Use Alternate Authentication Material: Web Session Cookie", ("TA0005", "TA0008")),
    "T1556": ("Modify Authentication Process", ("TA0006", "TA0005", "TA0003")),
    "T1556.007": ("Modify Authentication Process: Hybrid Identity", ("TA0006", "TA0005", "TA0003")),
    "T1556.009": ("Modify Authentication Process: Conditional Access Policies", ("TA0006", "TA0005", "TA0003")),
    "T1562": ("Impair Defenses", ("TA0005",)),
    "T1562.001": ("Impair Defenses: Disable or Modify Tools", ("TA0005",)),
    "T1562.007": ("Impair Defenses: Disable or Modify Cloud Firewall", ("TA0005",)),
    "T1562.008": ("Impair Defenses: Disable or Modify Cloud Logs", ("TA0005",)),
    "T1567": ("Exfiltration Over Web Service", ("TA0010",)),
    "T1572": ("Protocol Tunneling", ("TA0011",)),
    "T1586.003": ("Compromise Accounts: Cloud Accounts", ("TA0042",)),
}


def wrong(pair: str) -> str:
    """What is wrong with `TACTIC/TECHNIQUE`, empty when nothing is."""
    tactic, _, technique = pair.partition("/")
    if tactic not in TACTICS:
        return f"{pair}: no tactic {tactic!r} in ATT&CK v17"
    if technique not in TECHNIQUES:
        return f"{pair}: no technique {technique!r} in the pinned table"
    name, tactics = TECHNIQUES[technique]
    if tactic not in tactics:
        return f"{pair}: {name} serves {', '.join(tactics)}"
    return ""
