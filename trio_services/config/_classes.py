"""Tables into attrs classes and dataclasses, with a problem for each key that is wrong. Pure."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, get_type_hints

import attrs
from cattrs import Converter, IterableValidationError
from cattrs.errors import IterableValidationNote

from ._problems import MisfitError, as_table, unknown_key
from ._types import described, holds_secret


def class_hook(target: Callable[..., object], converter: Converter) -> Callable[[Any, Any], object]:
    """What makes an instance of a class out of a table.

    Unlike the hook that `cattrs` has for this, it runs the validators of attrs' fields one by one,
    so that all that they have to say comes out at once, and each at its key.
    """
    fields = _fields(target)
    secret = any(holds_secret(field.type) for field in fields.values())

    def structure(value: object, _: object) -> object:
        table = as_table(value, secret=secret)
        arguments: dict[str, object] = {}
        errors: list[Exception] = []
        for key, item in table.items():
            try:
                arguments[key] = _structure_field(fields, key, item, converter)
            except Exception as error:  # noqa: BLE001 -- other people's validators are run
                errors.append(_noted(error, key))
        for key, field in fields.items():
            if field.required and key not in table:
                missing = MisfitError(f"missing; expected {described(field.type)}")
                errors.append(_noted(missing, key))
        if errors:
            raise IterableValidationError(
                "in a table",
                errors,
                dict,  # pyright: ignore[reportCallIssue]
            )
        return target(**arguments)

    return structure


@attrs.frozen
class _Field:
    """A field of a class as a key of its table."""

    type: Any
    required: bool
    attribute: Any = None  # where it is one of attrs

    def validate(self, value: object) -> None:
        """Run the field's own validator.

        The class runs it again when it is made. That is also when one has its say that looks at
        other fields, or at what a converter has made of the value.
        """
        attribute = self.attribute
        if attribute and attribute.validator and not attribute.converter:
            with contextlib.suppress(_NeedsInstanceError):
                attribute.validator(_Unmade(), attribute, value)


class _NeedsInstanceError(Exception):
    """A validator looked at the other fields."""


class _Unmade:
    """Stands for an instance that is not made yet."""

    def __getattr__(self, name: str) -> object:
        raise _NeedsInstanceError(name)


def _structure_field(
    fields: dict[str, _Field], key: str, item: object, converter: Converter
) -> object:
    if key not in fields:
        raise MisfitError(unknown_key(key, fields))
    field = fields[key]
    value: object = converter.structure(item, field.type)
    field.validate(value)
    return value


def _fields(target: Any) -> dict[str, _Field]:
    """The fields of an attrs class or dataclass by their keys.

    Raises:
        MisfitError: an annotation cannot be resolved.
    """
    try:
        types = get_type_hints(target, include_extras=True)
    except Exception as error:
        name = target.__qualname__
        raise MisfitError(f"the annotations of {name} do not resolve: {error}") from error
    if attrs.has(target):
        return {
            field.alias: _Field(types[field.name], field.default is attrs.NOTHING, field)
            for field in attrs.fields(target)
            if field.init and field.alias is not None
        }
    nothing = dataclasses.MISSING
    return {
        field.name: _Field(
            types[field.name], field.default is nothing and field.default_factory is nothing
        )
        for field in dataclasses.fields(target)
        if field.init
    }


def _noted(error: Exception, key: str) -> Exception:
    """An error with the note of its place that `IterableValidationError` looks for."""
    error.__notes__ = [*getattr(error, "__notes__", []), IterableValidationNote("", key, object)]
    return error
