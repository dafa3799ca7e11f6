"""From the text of a configuration file to a configuration. No Trio, and no I/O but for secrets.

The steps, in order: the text is read as TOML; the environment and then the ``--set`` arguments are
laid over it; the result is structured into the tables of the schema; the tables are checked
against each other. What goes wrong in the last three is collected and raised together.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from cattrs import Converter

from ..errors import ConfigError
from ._check import check
from ._overrides import Tree, apply, read_arguments, read_environment
from ._problems import KeyPath, Origins, Problem, dotted, is_list, is_table, one_line
from ._schema import NAMED, Configuration, Tables
from ._secrets import Secrets
from ._structure import StructureError, strict_converter, structure

Check = Callable[[str], object]
"""Raises ValueError, with a sentence, for a text that is not what its key asks for."""

_DEEPEST = 32  # tables in tables: far more than anybody needs, and far less than Python's stack


def load_text(
    text: str,
    *,
    source: Path,
    environment: Mapping[str, str],
    overrides: Sequence[str] = (),
    checks: Mapping[str, Check],
) -> Configuration:
    """The configuration in a text.

    Args:
        text: what the file holds.
        source: the file's path, for messages and for what is relative to it.
        environment: variables, of which those that begin with ``TRIO_SERVICES__`` override the
            file; secrets may be in others.
        overrides: ``key=value`` arguments, which override both.
        checks: what rooms above this one know of the texts of some keys, by dotted key.

    Raises:
        ConfigError: with everything that is wrong.
    """
    tree = _read_toml(text, str(source))
    from_environment, lines = read_environment(environment)
    from_arguments, more = read_arguments(overrides)
    origins, unplaced = apply(tree, [*from_environment, *from_arguments], named=NAMED)
    where = Origins(str(source), origins)
    folder = source.absolute().parent
    secrets = Secrets(folder, environment)
    tables, problems = _read_tables(tree, strict_converter(folder, secrets))
    unsound = {problem.key[:2] for problem in problems}
    problems += check(
        tree, tables, imports_known=unsound.isdisjoint({("host",), ("host", "imports")})
    )
    problems += _check_texts(tables, checks)
    lines += more + unplaced + [where.line(secrets.redact(problem)) for problem in problems]
    if lines:
        raise ConfigError(lines)
    return Configuration(source, tables, where, environment, text, tree)


def _read_toml(text: str, source: str) -> Tree:
    try:
        tree = tomllib.loads(text)
    except RecursionError:
        raise ConfigError([f"{source}: nested too deeply"]) from None
    except ValueError as error:  # also from numbers with more digits than Python reads
        raise ConfigError([_syntax_error(str(error), text, source)]) from None
    if (key := _too_deep(tree)) is not None:
        raise ConfigError([Origins(source).line(Problem(key, f"nested more than {_DEEPEST} deep"))])
    return tree


def _syntax_error(message: str, text: str, source: str) -> str:
    """The line for a text that is not TOML: ``file:line:column: what is wrong``."""
    said, _, _ = message.partition(" (at ")
    if place := re.search(r"line (\d+), column (\d+)", message):
        line, column = int(place[1]), int(place[2])
    else:
        line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
    if twice := re.fullmatch(r"Cannot declare (\(.*\)) twice", said):
        said = f"[{dotted(ast.literal_eval(twice[1]))}] is there twice"
    elif said == "Cannot overwrite a value":
        said = "this key is there twice"
    elif "integer string conversion" in said:
        return f"{source}: a number has too many digits"  # Python does not say where
    return one_line(f"{source}:{line}:{column}: {said}")


def _too_deep(tree: Tree) -> KeyPath | None:
    """The way to a value that is nested too deeply, if one is."""
    todo: list[tuple[KeyPath, object]] = [((), tree)]
    while todo:
        key, value = todo.pop()
        if len(key) > _DEEPEST:
            return key
        if is_table(value):
            todo += [((*key, name), item) for name, item in value.items()]
        elif is_list(value):
            todo += [((*key, index), item) for index, item in enumerate(value)]
    return None


def _read_tables(tree: Tree, converter: Converter) -> tuple[Tables, list[Problem]]:
    """The tables of a document without what does not fit, and what is wrong with that.

    So that all the rest can be checked too, as little as possible is left out: the key, or else
    its table, or else that table's table.
    """
    problems: list[Problem] = []
    misfits: list[Problem] = []
    for depth in (0, 3, 2, 1):
        for misfit in misfits:
            tree = _without(tree, misfit.key[:depth])
        try:
            return structure(converter, tree, Tables, ()), problems
        except StructureError as error:
            misfits = error.problems
            problems = problems or misfits
    raise AssertionError("an empty document is sound")


def _without(tree: Tree, key: KeyPath) -> Tree:
    """A copy without a key; without all of what is on its way and not a plain table."""
    first, below = str(key[0]), key[1:]
    if below and is_table(table := tree.get(first)):
        return {**tree, first: _without(table, below)}
    return {name: item for name, item in tree.items() if name != first}


def _check_texts(tables: Tables, checks: Mapping[str, Check]) -> Iterator[Problem]:
    for key, check_text in checks.items():
        value: object = tables
        for part in key.split("."):
            value = getattr(value, part, None)
        if isinstance(value, str):
            try:
                check_text(value)
            except ValueError as error:
                yield Problem(tuple(key.split(".")), str(error))
