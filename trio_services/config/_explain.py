"""The merged configuration, each value with where it came from; secrets are masked."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime, time
from enum import Enum
from pathlib import PurePath
from typing import Any, TypeGuard, get_args, get_type_hints

import attrs

from ..secrets import MASK, Secret
from ..supervision import Supervisor
from ._application import Application
from ._durations import Seconds, format_duration
from ._lines import line_numbers
from ._overrides import Given
from ._policies import BackoffTable
from ._problems import KeyPath, MisfitError, dotted, one_line
from ._reference import CodeReference
from ._schema import ChildTable, Configuration
from ._secrets import place_of
from ._types import is_class

DEFAULT = "default"


@attrs.frozen
class Explained:
    """One value.

    Args:
        key: which, as TOML writes it.
        value: as TOML or JSON may hold it; of a secret, a mask.
        origin: where it was said: ``post.toml:3``, ``environment NAME``, ``--set KEY``,
            ``default``; of a secret also where it is.
    """

    key: str
    value: object
    origin: str

    @property
    def line(self) -> str:
        """The key and its value as TOML writes them."""
        return one_line(f"{self.key} = {json.dumps(self.value, ensure_ascii=False)}")


def explain(configuration: Configuration, application: Application) -> list[Explained]:
    """Every value that holds, in the order of the schema; what has none is left out."""
    explainer = _Explainer(configuration, application)
    return [
        Explained(dotted(key), value, explainer.origin(key, secret=secret))
        for key, value, secret in explainer.walk((), configuration.tables, None)
    ]


_Value = tuple[KeyPath, object, bool]
"""A key, its value, and whether that is a masked secret."""


class _Explainer:
    def __init__(self, configuration: Configuration, application: Application) -> None:
        self._configuration = configuration
        self._parts = application.parts
        self._tree = application.tree
        self._lines = line_numbers(configuration.text)

    def walk(self, key: KeyPath, value: Any, target: Any) -> Iterator[_Value]:
        """All values at a key and below it.

        Args:
            key: where it is.
            value: the typed one.
            target: its type, as far as that is known.
        """
        if value is None:
            return
        # The address of an alert says who may write to it, and so is a secret wherever it is.
        if isinstance(value, Secret) or (key[:1] == ("alerts",) and key[-1] == "url"):
            yield key, MASK, True
        elif Seconds in (target, *get_args(target)) and isinstance(value, float):
            yield key, format_duration(value), False
        elif _is_table_class(value):
            yield from self._walk_class(key, value)
        elif _is_mapping(value) and value:
            for name, item in value.items():
                yield from self.walk((*key, _plain(name)), item, None)
        elif _is_array(value) and any(map(_is_compound, value)):
            for position, item in enumerate(value):
                yield from self.walk((*key, position), item, None)
        else:
            yield key, _plain(value), False

    def _walk_class(self, key: KeyPath, value: Any) -> Iterator[_Value]:
        kind: Any = value.__class__
        types = get_type_hints(kind, include_extras=True)
        is_child = isinstance(value, ChildTable)
        for name, alias in _fields(kind):
            item = getattr(value, name)
            below = (*key, alias)
            if is_child and name == "options":
                yield from self._walk_options(below, item)
                continue
            if item is None and is_child:
                item = _default_of(self._tree, name)
            yield from self.walk(below, item, types.get(name))

    def _walk_options(self, key: KeyPath, written: object) -> Iterator[_Value]:
        """The options of a child as its code gets them; several may have asked for them."""
        seen: set[KeyPath] = set()
        for options in self._parts[str(key[1])].options:
            for found in self.walk(key, options, None):
                if found[0] not in seen:
                    seen.add(found[0])
                    yield found

    def origin(self, key: KeyPath, *, secret: bool) -> str:
        """Where the value of a key was said."""
        written, is_written = self._written(key)
        if not is_written:
            return DEFAULT
        overrides = self._configuration.origins.overrides
        for length in range(len(key), 0, -1):
            if (origin := overrides.get(key[:length])) is not None:
                break
        else:
            origin = self._in_file(key)
        if secret:
            try:
                return f"{origin} ({place_of(written)})"
            except MisfitError:  # given as text by a variable
                pass
        return origin

    def _in_file(self, key: KeyPath) -> str:
        source = self._configuration.source
        for length in range(len(key), 0, -1):
            if (line := self._lines.get(key[:length])) is not None:
                return f"{source}:{line}"
        return str(source)

    def _written(self, key: KeyPath) -> tuple[object, bool]:
        """What the document says at a key, and whether it says anything."""
        value: Any = self._configuration.document
        for part in key:
            if isinstance(value, Given):
                value = value.value
            try:
                value = value[part]
            except (LookupError, TypeError):  # a value where a table would be
                return None, False
        return value, True


def _default_of(tree: Supervisor, name: str) -> object:
    """What the tree says where a child says nothing itself."""
    match name:
        case "backoff":
            return BackoffTable(**attrs.asdict(tree.backoff))
        case "restart" | "start_within" | "stop_within":
            return getattr(tree, name)
        case _:
            return None


def _fields(target: Any) -> Iterator[tuple[str, str]]:
    """The fields of a class: what they are called in it, and in a table."""
    if attrs.has(target):
        for field in attrs.fields(target):
            if field.init:
                yield field.name, field.alias or field.name
    else:
        for field in dataclasses.fields(target):
            if field.init:
                yield field.name, field.name


def _is_compound(value: object) -> bool:
    kinds = (Secret, Mapping, list, tuple)
    return isinstance(value, kinds) or _is_table_class(value)


def _is_table_class(value: object) -> bool:
    return is_class(type(value)) and not isinstance(value, CodeReference)


def _is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(value, Mapping)


def _is_array(value: object) -> TypeGuard[Collection[Any]]:
    return isinstance(value, (list, tuple, set, frozenset))


def _plain(value: Any) -> Any:
    """A value as TOML and JSON may hold it."""
    match value:
        case Enum():
            return value.value
        case CodeReference() | PurePath():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case Mapping():
            return {}
        case _:
            return [_plain(item) for item in value] if _is_array(value) else value
