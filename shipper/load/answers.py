"""What both kinds of database have in common: settings of each call, and the reading of a person's answers."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import msgspec

from shipper.errors import UsageError

# What an answer means is not for the profile of a user or the defaults of a server to decide.
PINNED = {
    # A part of an answer must not pass for the whole: the limits of a profile hold, and end in an error. Time, result,
    # join and distinct were seen to give a part in silence; the others are documented to.
    "limit": "0",
    "offset": "0",
    "timeout_overflow_mode": "throw",
    "result_overflow_mode": "throw",
    "join_overflow_mode": "throw",
    "distinct_overflow_mode": "throw",
    "read_overflow_mode": "throw",
    "sort_overflow_mode": "throw",
    "group_by_overflow_mode": "throw",
    "set_overflow_mode": "throw",
    "transfer_overflow_mode": "throw",
    # Nor an old answer for the state of the table.
    "use_query_cache": "0",
    # Each of these made another answer of one of our questions.
    "join_use_nulls": "0",
    "aggregate_functions_null_for_empty": "0",
    "empty_result_for_aggregation_by_empty_set": "0",
    "enable_positional_arguments": "1",
}

# Rows count once even where ReplacingMergeTree has not merged their doubles yet.
READ = {**PINNED, "final": "1"}

PERSON = {
    "final": "1",
    "readonly": "1",
    # Times as UTC, whatever the zone of the server or of the host of the embedded engine.
    "session_timezone": "UTC",
    "output_format_json_array_of_rows": "1",
    # rawLog may hold bytes that are no UTF-8, and JSON may not.
    "output_format_json_validate_utf8": "1",
}

# A rule's query: it may come from anybody's folder.
RULE = {**READ, "readonly": "1", "session_timezone": "UTC"}

# Also for READ, PERSON and RULE, where the database has them: a server refuses a setting that it does not know.
# NEWER_INSERT is the same for INSERT.
NEWER = {
    # Since 25.6. With 0 an index on a column outside of the sort key hides later copies of a row from FINAL; older
    # servers use no index then.
    "use_skip_indexes_if_final_exact_mode": "1",
}

INSERT = {
    # On by default since ClickHouse 26.2: the answer would come before the rows are in the table.
    "async_insert": "0",
    "insert_deduplicate": "1",
    # Answer after the end, so that a failure half-way is not a success with an error in its body.
    "wait_end_of_query": "1",
    # All rows of a batch in one block, whatever its bytes: they are there together or not at all.
    "max_insert_block_size": "1048449",
    "min_insert_block_size_rows": "1048449",
    "min_insert_block_size_bytes": "0",
    # With `break` an insert that takes too long is acknowledged without its rows (measured with 26.7).
    "timeout_overflow_mode": "throw",
}

NEWER_INSERT = {
    # The newer word for insert_deduplicate, which it overrules: with `disable` a repeated insert is there twice.
    "deduplicate_insert": "enable",
    # With 1 a batch is cut, whatever the sizes above say.
    "use_strict_insert_block_limits": "0",
    # Since 26.2. With 1 the rows that came before a connection broke are an insert of their own (measured with 26.7).
    "input_format_connection_handling": "0",
}

INTEGER_TIMES = {"DateTime*": "int"}


def limited(settings: Mapping[str, str], seconds: float, memory: int) -> dict[str, str]:
    """The settings with a ceiling for time and for bytes of memory; beyond it a query ends in an error."""
    return {**settings, "max_execution_time": f"{seconds:g}", "max_memory_usage": str(memory)}


def known_to(known: Container[str], settings: Mapping[str, str], newer: Mapping[str, str] = NEWER) -> dict[str, str]:
    """READ, PERSON, RULE or INSERT for a database that knows these settings."""
    return {**settings, **{name: value for name, value in newer.items() if name in known}}


_HINT = "Give one statement that returns rows, without FORMAT."


class _Column(msgspec.Struct):
    name: str


class _Table(msgspec.Struct):
    meta: list[_Column]
    data: list[tuple[str | None, ...]]


_table = msgspec.json.Decoder(_Table)
_objects = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def json_array(body: bytes) -> bytes:
    """The body of a JSONEachRow answer, checked to be one array of objects. Raises UsageError when it is not."""
    if not body.strip():
        return b"[]\n"
    try:
        _objects.decode(body)
    except msgspec.DecodeError as error:
        raise UsageError("the query's answer is not one set of rows", hint=_HINT) from error
    return body


def json_table(body: bytes) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a JSONCompactStrings answer. Raises UsageError when it is none."""
    if not body.strip():
        return [], []
    try:
        table = _table.decode(body)
    except msgspec.DecodeError as error:
        raise UsageError("the query's answer is not one set of rows", hint=_HINT) from error
    return [column.name for column in table.meta], [tuple(row) for row in table.data]
