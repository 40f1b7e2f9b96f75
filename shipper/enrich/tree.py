"""Reads the YAML of a list of rules: lists, maps and text, and nothing that YAML would make of the text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml


class TreeError(Exception):
    """What is the matter, and the line where that is known. Never the text: the file may be one that was not meant."""

    def __init__(self, problem: str, line: int | None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


def read_tree(text: str) -> object:
    """The one document, None for an empty file. Every scalar is the text in the file: 0123, yes and dates included.

    Raises TreeError.
    """
    try:
        return _Tree(text).read()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise TreeError("not valid YAML", mark.line + 1 if mark else None) from None


def _error(problem: str, event: Any) -> TreeError:
    return TreeError(problem, event.start_mark.line + 1)


class _Tree:
    """PyYAML's own constructor keeps the last of two equal keys, and its C composer overflows the stack on deep
    nesting.
    """

    _DEPTH = 8

    def __init__(self, text: str) -> None:
        # The C parser reads 100,000 rules in seconds. Wheels have it, some builds do not.
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)))
        self._anchors: dict[str, object] = {}

    def read(self) -> object:
        documents: list[object] = []
        for event in self._events:
            if isinstance(event, yaml.NodeEvent):
                if documents:
                    raise _error("a second document", event)
                documents.append(self._node(event, 0))
        return documents[0] if documents else None

    def _node(self, event: Any, depth: int) -> object:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _error("an alias without its anchor", event)
            return self._anchors[event.anchor]
        value: object
        if isinstance(event, yaml.ScalarEvent):
            value = event.value
        elif depth == self._DEPTH:
            raise _error("nested too deep", event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = [self._node(item, depth + 1) for item in iter(self._next, None)]
        else:
            value = self._map(depth + 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _map(self, depth: int) -> dict[str, object]:
        values: dict[str, object] = {}
        for event in iter(self._next, None):
            key = self._node(event, depth)
            if not isinstance(key, str) or key in values:
                problem = "the same key twice" if isinstance(key, str) else "a key that is not text"
                raise _error(problem, event)
            values[key] = self._node(self._next(), depth)
        return values

    def _next(self) -> Any:
        """The next node, or None at the end of the list or map."""
        event = next(self._events)
        return None if isinstance(event, yaml.CollectionEndEvent) else event
