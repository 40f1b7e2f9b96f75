from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting and no proxy of the machine reaches a test."""
    for name in os.environ:
        if name.startswith(("SHIPPER_", "OPENAI_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
