"""Plain values into typed ones, strictly: what does not fit is a problem, never converted.

Pure, but for secrets: those are read from where the configuration says that they are.

Theory. `cattrs` finds the hook for a type, walks arrays and tables, and groups what goes wrong in
them. Its own hooks guess (``"false"`` is true, 3.7 is 3, a text is a list of letters), and are all
replaced here; a type that has no hook here is refused. What is wrong in a group carries a note of
its place, so that all of it comes out at once, each with its key.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path, PurePath
from types import GenericAlias
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from cattrs import Converter, IterableValidationError
from cattrs.cols import list_structure_factory
from cattrs.gen import make_mapping_structure_fn  # pyright: ignore[reportUnknownVariableType]

from ..secrets import Secret
from ._classes import class_hook
from ._durations import Seconds, parse_duration
from ._overrides import Given, plain
from ._problems import (
    KeyPath,
    MisfitError,
    Problem,
    as_table,
    is_table,
    kind_of,
    shown,
    suggestion,
)
from ._reference import CodeReference
from ._schema import Options
from ._secrets import Secrets
from ._types import (
    ARRAYS,
    SCALARS,
    WORDS,
    described,
    holds_secret,
    is_array,
    is_class,
    is_mapping,
    is_union,
    members,
)

T = TypeVar("T")
Hook = Callable[[Any, Any], Any]


class StructureError(Exception):
    """All that is wrong with a value."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def structure(converter: Converter, value: object, target: type[T], key: KeyPath) -> T:
    """The typed value for a plain one.

    Args:
        converter: from `strict_converter`.
        value: as `tomllib` gives it, with `Given` where it was overridden.
        target: the type.
        key: where the value is.

    Raises:
        StructureError: it does not fit.
    """
    try:
        return converter.structure(value, target)
    except Exception as error:
        raise StructureError(list(_problems(error, key))) from error


def strict_converter(folder: Path, secrets: Secrets) -> Converter:
    """A converter that makes typed values out of plain ones and guesses nothing.

    Args:
        folder: what relative paths are relative to.
        secrets: what reads those.
    """
    converter = Converter(detailed_validation=True)

    def path(value: object, target: type[PurePath]) -> PurePath:
        if not isinstance(value, str) or not value or "\0" in value:
            raise MisfitError(f"{shown(value)} is not a path")
        return target(folder / value)

    def secret_union(target: Any) -> Hook:
        return _secret_union_hook(target, converter)

    def annotated(target: Any) -> Hook:
        return lambda value, _: converter.structure(value, get_args(target)[0])

    hooks: list[tuple[Callable[[Any], bool], Callable[[Any], Hook]]] = [  # the last match is taken
        (lambda _: True, lambda _: _unsupported),
        (lambda target: target in (Any, object), lambda _: _as_it_is),
        (lambda target: get_origin(target) is Annotated, annotated),
        (lambda target: get_origin(target) is Literal, lambda _: _literal),
        (is_union, lambda target: _union_hook(target, converter)),
        (is_array, lambda target: _array_hook(target, converter)),
        (is_mapping, lambda target: _mapping_hook(target, converter)),
        (is_class, lambda target: class_hook(target, converter)),
        (lambda target: target == Seconds, lambda _: _duration),
        (lambda target: target is CodeReference, lambda _: _code_reference),
        (lambda target: target is Options, lambda _: _options),
    ]
    for matches, factory in hooks:
        converter.register_structure_hook_factory(matches, _reading_factory(factory))
    for kind, hook in [
        *((scalar, _scalar) for scalar in (*SCALARS, Enum)),
        (Path, path),
        (PurePath, path),
        (bytes, _unsupported),
    ]:
        converter.register_structure_hook(kind, _reading(hook))
    # These decide by themselves what to do with what was given as text.
    converter.register_structure_hook(Secret, secrets.structure)
    converter.register_structure_hook_factory(_is_secret_union, secret_union)
    return converter


def _reading(hook: Hook) -> Hook:
    """The same hook, which reads what was given as text: as TOML, or else as the text that it is.

    So ``5`` is a number where a number is wanted, and a text where a text is.
    """

    def read(value: object, target: object) -> object:
        if not isinstance(value, Given):
            return hook(value, target)
        try:
            return hook(value.value, target)
        except Exception as error:  # noqa: BLE001 -- other people's validators are run
            try:
                return hook(value.text, target)
            except Exception:  # noqa: BLE001 -- the first says better what does not fit
                raise error from None

    return read


def _reading_factory(factory: Callable[[Any], Hook]) -> Callable[[Any], Hook]:
    def make(target: Any) -> Hook:
        return _reading(factory(target))

    return make


# -- hooks ---------------------------------------------------------------------------------


def _unsupported(value: object, target: object) -> object:
    raise MisfitError(f"a configuration cannot hold {described(target)}")


def _as_it_is(value: object, target: object) -> object:
    return plain(value)


def _options(value: object, target: object) -> object:
    """A table as it is: what was given as text in it is read by whoever knows its type."""
    return as_table(value)


def _scalar(value: Any, target: Any) -> object:
    if issubclass(target, Enum):
        return _choose(value, [(member.value, member) for member in target])
    base = next(kind for kind in SCALARS if issubclass(target, kind))
    if base is float:
        value = _number(value, float)
    elif type(value) is not base:
        raise MisfitError(f"{shown(value)} is not {WORDS[base]}")
    return value if target is base else target(value)


def _number(value: Any, target: object) -> float:
    """A finite float; a whole number is one too, `true` is not."""
    if type(value) not in (int, float):
        raise MisfitError(f"{shown(value)} is not {WORDS[target]}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise MisfitError(f"{shown(value)} is not a finite number")
    return number


def _duration(value: object, target: object) -> float:
    if not isinstance(value, str):
        return _number(value, Seconds)
    try:
        return parse_duration(value)
    except ValueError:
        raise MisfitError(f"{shown(value)} is not {WORDS[Seconds]}") from None


def _code_reference(value: object, target: object) -> CodeReference:
    if not isinstance(value, str):
        raise MisfitError(f"{shown(value)} does not name code; expected {WORDS[CodeReference]}")
    return CodeReference.parse(value)


def _literal(value: object, target: object) -> object:
    return _choose(value, [(choice, choice) for choice in get_args(target)])


def _choose(value: object, choices: Sequence[tuple[object, object]]) -> object:
    """What the choice means that equals a value."""
    for choice, meaning in choices:
        if type(choice) is type(value) and choice == value:  # for Python, 1 also equals true
            return meaning
    words = [choice for choice, _ in choices if isinstance(choice, str)]
    hint = suggestion(value, words) if isinstance(value, str) else ""
    expected = ", ".join(sorted(shown(choice) for choice, _ in choices))
    raise MisfitError(f"{shown(value)} is not one of {expected}{hint}")


def _union_hook(target: object, converter: Converter) -> Hook:
    kinds = members(target)

    def structure(value: object, _: object) -> object:
        for kind in kinds:
            try:
                return converter.structure(value, kind)
            except Exception:
                if len(kinds) == 1:
                    raise
        raise MisfitError(f"{shown(value)} is not {described(target)}")

    return structure


def _is_secret_union(target: object) -> bool:
    return is_union(target) and Secret in members(target)


def _secret_union_hook(target: object, converter: Converter) -> Hook:
    """A secret where there is one, and one of the others in clear text."""
    others = [kind for kind in members(target) if kind is not Secret]

    def structure(value: object, _: object) -> object:
        plain_value = value.value if isinstance(value, Given) else value
        private = isinstance(value, Given) and value.private
        if is_table(plain_value) or private or not others:
            return converter.structure(value, Secret)
        for kind in others:
            with contextlib.suppress(Exception):
                return converter.structure(value, kind)
        raise MisfitError(f"{kind_of(plain_value)} is not {described(target)}")

    return structure


def _array_hook(target: Any, converter: Converter) -> Hook:
    collect = ARRAYS[get_origin(target) or target]
    (item, *_) = get_args(target) or (Any,)
    items: Any = GenericAlias(list, (item,))
    each = list_structure_factory(items, converter)

    def structure(value: Any, _: object) -> object:
        if not isinstance(value, list):
            what = kind_of(value) if holds_secret(item) else shown(value)
            hint = f"; write [{what}]" if isinstance(value, str) else ""
            raise MisfitError(f"{what} is not an array{hint}")
        return collect(each(value, items))

    return structure


def _mapping_hook(target: Any, converter: Converter) -> Hook:
    table: Any = GenericAlias(dict, get_args(target) or (str, Any))
    each = make_mapping_structure_fn(table, converter, detailed_validation=True)
    secret = holds_secret(table)
    return lambda value, _: each(as_table(value, secret=secret), table)


# -- problems ------------------------------------------------------------------------------


def _problems(error: Exception, key: KeyPath) -> Iterator[Problem]:
    """The single problems in a group, each with its place."""
    if not isinstance(error, IterableValidationError):
        yield Problem(key, _said(error))
        return
    noted, others = error.group_exceptions()
    for part, note in noted:
        yield from _problems(part, (*key, note.index))
    for part in others:
        yield from _problems(part, key)


def _said(error: Exception) -> str:
    """What an exception has to say, without the objects that attrs' validators attach."""
    first = error.args[0] if error.args else None
    text = first if isinstance(first, str) and len(error.args) > 1 else str(error)
    if isinstance(error, (ValueError, TypeError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
