"""Values from the environment and from ``--set``, laid over those of the file. Pure."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from ._problems import KeyPath, MisfitError, dotted, is_table, one_line, quoted, suggestion

PREFIX = "TRIO_SERVICES__"

Tree = dict[str, Any]
"""A TOML document, as `tomllib` gives it."""


@attrs.frozen
class Given:
    """A value that was given as text, where nothing says yet of which type it is to be.

    Whoever knows the type tries `value` first and `text` where that does not fit, so that ``5`` is
    a number for a number and a text for a text.

    Args:
        text: as it was given.
        value: the text read as a TOML value; the text itself where it is none.
        private: whether nobody but this process was to see it, so that it may be a secret.
    """

    text: str
    value: object
    private: bool = False


@attrs.frozen
class Override:
    """One value that replaces one of the file.

    Args:
        origin: where it was given, for people: ``--set log.level``.
        key: which key it replaces.
        given: the value.
        folded: whether the key was written where case and punctuation are lost.
    """

    origin: str
    key: tuple[str, ...]
    given: Given
    folded: bool = False


def read_environment(environment: Mapping[str, str]) -> tuple[list[Override], list[str]]:
    """The overrides among some environment variables, and a line for each malformed one.

    ``TRIO_SERVICES__SERVICES__SYNC__OPTIONS__BATCH`` is ``services.sync.options.batch``: two
    underscores separate the parts, case does not matter, and ``_`` also stands for the ``-`` and
    ``.`` of a name, which a shell's variables cannot have.
    """
    overrides: dict[tuple[str, ...], Override] = {}
    problems: list[str] = []
    for name, text in environment.items():
        if not name.upper().startswith(PREFIX):
            continue
        origin = one_line(f"environment {name}")
        key = tuple(name[len(PREFIX) :].lower().split("__"))
        if not all(key):
            problems.append(f"{origin}: expected {PREFIX}TABLE__KEY, such as {PREFIX}LOG__LEVEL")
        elif key in overrides:
            problems.append(f"{origin}: the {overrides[key].origin} is the same key")
        elif not is_text(text):
            problems.append(f"{origin}: its value is not UTF-8 text")
        else:
            overrides[key] = Override(origin, key, _given(text, private=True), folded=True)
    # A table before what is in it, so that both are heard.
    return [overrides[key] for key in sorted(overrides, key=len)], problems


def read_arguments(arguments: Sequence[str]) -> tuple[list[Override], list[str]]:
    """The overrides of some ``key=value`` arguments, and a line for each malformed one."""
    overrides: list[Override] = []
    problems: list[str] = []
    for argument in arguments:
        written, equals, text = argument.partition("=")
        key = _read_key(written)
        if not equals or not key or not is_text(text):
            problems.append(
                f"--set {quoted(argument)}: expected KEY=VALUE, such as log.level=debug"
            )
        else:
            overrides.append(Override(f"--set {dotted(key)}", key, _given(text)))
    return overrides, problems


def apply(
    tree: Tree, overrides: Iterable[Override], *, named: Iterable[str]
) -> tuple[dict[KeyPath, str], list[str]]:
    """Lay overrides over a tree, changing it; later ones win.

    Args:
        tree: the document of the file.
        overrides: in the order of their precedence, the weakest first.
        named: the top-level tables that hold tables under names of their own. An override changes
            one of those, but makes no new one: it would be a misspelt name.

    Returns: the origin of each key that was laid over, and a line for each that could not be.
    """
    origins: dict[KeyPath, str] = {}
    problems: list[str] = []
    for override in overrides:
        try:
            key = _apply(tree, override, frozenset(named))
        except MisfitError as error:
            problems.append(f"{override.origin}: {error}")
        else:
            for below in [known for known in origins if known[: len(key)] == key]:
                del origins[below]
            origins[key] = override.origin
    return origins, problems


def plain(value: Any) -> Any:
    """The same value with what was given as text read as TOML, wherever it is in it."""
    if isinstance(value, Given):
        return value.value
    if is_table(value):
        return {key: plain(item) for key, item in value.items()}
    return value


def _apply(tree: Tree, override: Override, named: frozenset[str]) -> tuple[str, ...]:
    """The key that was replaced, spelt as in the tree.

    Raises:
        MisfitError: there is no such place.
    """
    table = tree
    key: tuple[str, ...] = ()
    for part in override.key:
        found = _find(table, part) if override.folded else part
        if len(key) == 1 and key[0] in named and found not in table:
            near = suggestion(found, table)
            raise MisfitError(f"there is no {dotted((*key, found))} in the file to change{near}")
        key = (*key, found)
        if len(key) == len(override.key):
            table[found] = override.given
            break
        below = table.get(found, {})
        if isinstance(below, Given):
            below = below.value
        if not is_table(below):
            raise MisfitError(f"{dotted(key)} is not a table")
        table[found] = below
        table = below
    return key


def _find(table: Tree, part: str) -> str:
    """The key of a table that a folded part means; the part itself where there is none."""
    if part in table:
        return part
    matches = [key for key in table if _fold(key) == _fold(part)]
    if len(matches) > 1:
        meant = " or ".join(dotted((key,)) for key in sorted(matches))
        raise MisfitError(f"it may mean {meant}; use --set")
    return matches[0] if matches else part


def _fold(key: str) -> str:
    return key.lower().replace("-", "_").replace(".", "_")


def _read_key(written: str) -> tuple[str, ...]:
    """The parts of a dotted TOML key; none where it is not one."""
    try:
        table: object = tomllib.loads(f"{written} = 0")
    except (ValueError, RecursionError):
        return ()
    key: list[str] = []
    while is_table(table):
        if len(table) != 1:  # a line break smuggled in a second key
            return ()
        [(part, table)] = table.items()
        key.append(part)
    return tuple(key)


def _given(text: str, *, private: bool = False) -> Given:
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return Given(text, text, private)
    if len(document) != 1:  # a line break smuggled in a second key
        return Given(text, text, private)
    return Given(text, document["value"], private)


def is_text(text: str) -> bool:
    """Whether a text came from proper UTF-8: Python hides stray bytes in surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)
