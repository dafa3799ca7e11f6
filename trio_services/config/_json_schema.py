"""The schema of the configuration file as a JSON Schema, by which editors complete TOML.

It walks the attrs classes that a file is structured into, as the documentation does. It says what
one key may hold, not what keys mean together: what it accepts may still be refused, and what it
refuses is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import attrs

from ..secrets import Secret
from ._constraints import NAME, Bound, is_name, rules_of
from ._durations import DURATION, Seconds, format_duration
from ._reference import CodeReference
from ._schema import NAMED, Options, Tables
from ._types import is_array, is_mapping, is_union, members

JSON = dict[str, Any]

_SCALARS: Mapping[object, JSON] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    CodeReference: {"type": "string", "pattern": r"^[^\s.:][^\s:]*:[^\s.:]+$"},
    Options: {"type": "object"},
    Secret: {
        "type": "object",
        "properties": {
            "env": {"type": "string", "minLength": 1, "description": "A variable that holds it."},
            "file": {"type": "string", "minLength": 1, "description": "A file that holds it."},
        },
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    },
}


def json_schema() -> JSON:
    """What a configuration file may say, as a JSON Schema of draft 7."""
    definitions: JSON = {}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "trio-services",
        "description": "The configuration of an application.",
        **_table(Tables, definitions),
        "definitions": definitions,
    }


def _table(table: type[attrs.AttrsInstance], definitions: JSON) -> JSON:
    types = get_type_hints(table, include_extras=True)
    fields = attrs.fields(table)
    properties = {field.name: _key(field, types[field.name], definitions) for field in fields}
    required = [field.name for field in fields if field.default is attrs.NOTHING]
    found: JSON = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": required} if required else found


def _key(field: attrs.Attribute[Any], target: Any, definitions: JSON) -> JSON:
    found: JSON = _value(target, definitions, rules_of(field.validator))
    if is_mapping(target) and field.name in NAMED:
        found["propertyNames"] = {"pattern": f"^{NAME.pattern}$"}
    if "$ref" in found:  # beside which nothing else counts
        found = {"allOf": [found]}
    unit = field.metadata["unit"]
    found["description"] = field.metadata["help"] + (f" In {unit}." if unit else "")
    default: Any = field.default
    if type(default) is float and default and Seconds in (target, *get_args(target)):
        found["default"] = format_duration(default)
    elif type(default) in (bool, int, float, str):
        found["default"] = default
    return found


def _value(target: Any, definitions: JSON, rules: list[Any]) -> JSON:
    """What may be written for a type."""
    if target == Seconds:
        text = {"type": "string", "pattern": f"^{DURATION.pattern}$"}
        return {"anyOf": [{"type": "number", **_bounds(rules)}, text]}
    if target in _SCALARS:
        found = {**_SCALARS[target], **_bounds(rules)}
        return {**found, "pattern": f"^{NAME.pattern}$"} if is_name in rules else found
    if get_origin(target) is Literal:
        return {"enum": list(get_args(target))}
    if is_union(target):
        choices = [_value(one, definitions, rules) for one in members(target)]
        return choices[0] if len(choices) == 1 else {"anyOf": choices}
    if is_array(target):
        return {"type": "array", "items": _value(get_args(target)[0], definitions, [])}
    if is_mapping(target):
        items = _value(get_args(target)[1], definitions, [])
        return {"type": "object", "additionalProperties": items}
    name: str = target.__name__
    if name not in definitions:
        definitions[name] = {}  # a table may be within itself
        definitions[name] = _table(target, definitions)
    return {"$ref": f"#/definitions/{name}"}


def _bounds(rules: list[Any]) -> JSON:
    words = {"least": "minimum", "above": "exclusiveMinimum", "most": "maximum"}
    return {
        word: bound
        for rule in rules
        if isinstance(rule, Bound)
        for name, word in words.items()
        if (bound := getattr(rule, name)) is not None
    }
