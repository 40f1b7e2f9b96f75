"""Reading the answer to a person's query."""

from __future__ import annotations

import pytest

from shipper.errors import UsageError
from shipper.load.answers import json_array, json_table


def test_no_output_is_no_rows() -> None:
    """A statement without a result is an empty array and an empty table."""
    assert json_array(b"\n") == b"[]\n"
    assert json_table(b"") == ([], [])


@pytest.mark.parametrize("body", [b"1\n", b"[1]", b'{"a":1}', b'[{"a":1}]\n[{"a":2}]', b'[{"a":'])
def test_only_one_array_of_objects_is_json(body: bytes) -> None:
    """Whatever else comes is an error with a hint, not output that a machine chokes on."""
    with pytest.raises(UsageError) as caught:
        json_array(body)
    assert caught.value.hint == "Give one statement that returns rows, without FORMAT."


@pytest.mark.parametrize("body", [b"a,b\n", b"[]", b'{"meta":[]}'])
def test_only_a_table_is_a_table(body: bytes) -> None:
    """The same for the table on the screen."""
    with pytest.raises(UsageError):
        json_table(body)
