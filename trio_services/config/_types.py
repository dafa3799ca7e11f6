"""The types that a configuration can hold, and what they are called in a sentence. Pure."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import (
    Callable,
    Iterable,
    Mapping,
    MutableMapping,
    MutableSequence,
    Sequence,
    Set as AbstractSet,
)
from datetime import date, datetime, time
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

from ..secrets import Secret
from ._durations import Seconds
from ._problems import shown
from ._reference import CodeReference
from ._secrets import WHERE

SCALARS: tuple[Any, ...] = (bool, int, float, str, datetime, date, time)
"""What TOML has, each before what it is a subclass of."""

ARRAYS: Mapping[object, Callable[[Iterable[Any]], object]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    Sequence: tuple,
    MutableSequence: list,
    AbstractSet: frozenset,
}
"""What arrays may be made into, and how."""

WORDS: Mapping[object, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    datetime: "a date with a time",
    date: "a date",
    time: "a time",
    Path: "a path",
    Seconds: 'a duration: seconds, or text like "500ms", "1.5s", "10m", "2h", "1d"',
    CodeReference: '"package.module:name"',
    Secret: WHERE,
}
"""What values of a type are called."""


def described(target: Any) -> str:
    """What a value of a type is called in a sentence."""
    if target in WORDS:
        return WORDS[target]
    if get_origin(target) is Annotated:
        return described(get_args(target)[0])
    if get_origin(target) is Literal:
        return f"one of {', '.join(sorted(map(shown, get_args(target))))}"
    if is_union(target):
        return " or ".join(map(described, members(target)))
    if is_array(target):
        return "an array"
    if is_mapping(target) or is_class(target):
        return "a table"
    return inspect.formatannotation(target)


def members(union: object) -> list[Any]:
    """The types of a union but for None, which TOML does not have."""
    return [member for member in get_args(union) if member is not NoneType]


def optional(target: Any) -> Any:
    """The type without its None."""
    return members(target)[0] if is_union(target) and len(members(target)) == 1 else target


def is_union(target: object) -> bool:
    """Whether it is ``A | B``."""
    return get_origin(target) in (Union, UnionType)


def holds_secret(target: object) -> bool:
    """Whether what is given for it may be a secret, in the right place or not."""
    return target is Secret or any(map(holds_secret, get_args(target)))


def is_array(target: object) -> bool:
    """Whether it holds any number of items of one type."""
    origin, arguments = get_origin(target) or target, get_args(target)
    if origin is tuple and arguments:
        return arguments[1:] == (...,)
    return origin in ARRAYS


def is_mapping(target: object) -> bool:
    """Whether it holds any keys."""
    return (get_origin(target) or target) in (dict, Mapping, MutableMapping)


def is_class(target: object) -> bool:
    """Whether a table can give its fields: an attrs class or a dataclass."""
    return isinstance(target, type) and (attrs.has(target) or dataclasses.is_dataclass(target))
