"""On which line of a TOML document each key is. Pure.

Theory. `tomllib` does not tell, and a second parser of TOML would be one too many. But a statement
ends with a line, and nothing less than a whole statement can be parsed: so each is the shortest run
of lines, from where the last one ended, that `tomllib` reads.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator

from ._problems import KeyPath, is_list, is_table


def line_numbers(text: str) -> dict[KeyPath, int]:
    """The line, from 1, on which the statement begins that says a key; of tables, their header.

    Args:
        text: a document that `tomllib` reads.
    """
    found: dict[KeyPath, int] = {}
    items: dict[KeyPath, int] = {}  # of arrays of tables: the last position
    table: KeyPath = ()
    for number, statement in _statements(text):
        document = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            table = _header(document, items)
            found.setdefault(table, number)
        else:
            for key in _keys(document):
                found.setdefault((*table, *key), number)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The statements of a document, each with the number of its first line."""
    lines = text.replace("\r\n", "\n").split("\n")
    first = 0
    for last in range(len(lines)):
        statement = "\n".join(lines[first : last + 1])
        try:
            tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # it goes on
        yield first + 1, statement
        first = last + 1


def _header(document: object, items: dict[KeyPath, int]) -> KeyPath:
    """The table that a header opens, from the document that it is by itself."""
    table: list[str | int] = []
    while is_table(document) and document:
        [(name, document)] = document.items()
        table.append(name)
        key = tuple(table)
        if is_list(document):
            items[key] = items.get(key, -1) + 1
        if key in items:
            table.append(items[key])
    return tuple(table)


def _keys(document: object) -> Iterator[KeyPath]:
    if is_table(document):
        for name, value in document.items():
            yield (name,)
            for below in _keys(value):
                yield (name, *below)
