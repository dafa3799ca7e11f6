"""The directive `configuration-reference`: every table and key, from the schema itself.

It walks the attrs classes that a configuration file is structured into. The sentence about a key
is its metadata; its type, default and range are those that are enforced. So the page cannot say
anything else than the code does; what this file does not know how to tell stops the build.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import attrs
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from trio_services import Supervisor
from trio_services.config import format_duration
from trio_services.config._constraints import (
    Bound,
    is_alert_url,
    is_cron,
    is_database_url,
    is_filled,
    is_name,
    is_package,
    is_timezone,
    rules_of,
)
from trio_services.config._durations import Seconds
from trio_services.config._schema import CHILDREN, ChildTable, Options, Tables
from trio_services.config._types import described, is_mapping, optional

_SHARED = "services, workers and schedules"
_RULES = {
    is_alert_url: "an address, not of a file",
    is_cron: "a cron expression",
    is_database_url: "the URL of a database; in clear text without a password",
    is_filled: "at least one",
    is_name: "a name",
    is_package: "names of packages",
    is_timezone: "a name of the IANA data base",
}


class ConfigurationReference(SphinxDirective):
    """A section for each table of the configuration file."""

    def run(self) -> list[nodes.Node]:
        """The sections, as if they had been written in place of the directive."""
        self.env.note_dependency(inspect.getfile(Tables))
        self.content = StringList(list(_reference()), source=__name__)
        return self.parse_content_to_nodes(allow_section_headings=True)


def _reference() -> Iterator[str]:
    for group in attrs.fields(Tables):
        annotation = optional(_types(Tables)[group.name])
        named = is_mapping(annotation)
        table = get_args(annotation)[1] if named else annotation
        if group.name == CHILDREN[0]:
            yield from _section("shared", f"Keys of all {_SHARED}", "")
            yield from _keys(ChildTable, own_only=False)
        title = f"``[{group.name}.NAME]``" if named else f"``[{group.name}]``"
        yield from _section(group.name, title, group.metadata["help"])
        if issubclass(table, ChildTable):
            yield from [f"Besides the keys of all {_SHARED}:", ""]
        yield from _keys(table, own_only=issubclass(table, ChildTable))
    for field, table in _inline_tables():
        title = f"``{field} = {{ … }}``"
        yield from _section(field, title, "")
        yield from _keys(table, own_only=False)


def _section(label: str, title: str, text: str) -> Iterator[str]:
    yield from [f".. _config-{label.replace('_', '-')}:", "", title, "~" * len(title), ""]
    if text:
        yield from [text, ""]


def _inline_tables() -> Iterator[tuple[str, type]]:
    """The tables that are written within another one, each once."""
    seen: set[str] = set()
    todo: list[Any] = [Tables]
    while todo:
        table = todo.pop(0)
        for name, annotation in _types(table).items():
            target = optional(annotation)
            if is_mapping(target):
                target = get_args(target)[1]
            if not attrs.has(target) or _is_text(target):
                continue
            todo.append(target)
            if table is not Tables and name not in seen:
                seen.add(name)
                yield name, target


def _keys(table: type, *, own_only: bool) -> Iterator[str]:
    annotations = _types(table)
    yield from [".. list-table::", "   :header-rows: 1", "   :widths: 16 26 14 44", ""]
    yield from _row("Key", "Value", "Default", "What it says")
    for field in attrs.fields(table):
        if own_only and field.inherited:
            continue
        if "help" not in field.metadata:
            raise ExtensionError(f"{table.__name__}.{field.name} has no help in its metadata")
        yield from _row(
            f"``{field.name}``",
            _value(field, annotations[field.name]),
            _default(field, annotations[field.name], table),
            _literals(field.metadata["help"]),
        )
    yield ""


def _row(*cells: str) -> Iterator[str]:
    for number, cell in enumerate(cells):
        yield f"   {'*' if number == 0 else ' '} - {cell}"


def _value(field: attrs.Attribute[Any], annotation: Any) -> str:
    """What may be written, in words: the type, the unit, and the range."""
    target = optional(annotation)
    if target == Seconds:
        words = "a duration"
    elif target is Options:
        words = "a table, as the code asks for it"
    elif attrs.has(target) and not _is_text(target):
        words = f":ref:`a table <config-{field.name.replace('_', '-')}>`"
    elif is_mapping(target):
        words = f"a table of names; each {_literals(_described(get_args(target)[1]))}"
    elif get_origin(target) is tuple:
        words = "an array of text"
    else:
        words = _literals(_described(target))
        unit = field.metadata.get("unit", "")
        words += f" of {unit}" if unit and target is int else ""
    rules = list(_rules(field.validator))
    return "; ".join([words, *rules])


def _described(target: Any) -> str:
    """The words for a type; choices in the order in which the schema has them."""
    if get_origin(target) is Literal:
        return "one of " + ", ".join(f'"{choice}"' for choice in get_args(target))
    return described(target)


def _literals(text: str) -> str:
    """The same words with what is in quotes set as code."""
    pieces = text.split('"')
    return "".join(f'``"{piece}"``' if n % 2 else piece for n, piece in enumerate(pieces))


def _rules(validator: Any) -> Iterator[str]:
    """The range that a validator allows, in words."""
    for rule in rules_of(validator):
        if rule in _RULES:
            yield _RULES[rule]
        elif not isinstance(rule, Bound):
            raise ExtensionError(f"the reference cannot tell what {rule!r} allows")
        elif rule.least is not None:
            yield f"at least {rule.least:,}"
        elif rule.above is not None:
            yield f"more than {rule.above:,}"
        else:
            yield f"at most {rule.most:,}"


def _default(field: attrs.Attribute[Any], annotation: Any, table: type) -> str:
    default = field.default
    if default is attrs.NOTHING:
        return "required"
    if factory := getattr(default, "factory", None):
        default = factory()
    if default is None and issubclass(table, ChildTable):
        default = _default_of_supervisors(field.name)
    if attrs.has(type(default)):
        return "its own defaults"
    if default is None or default in ((), {}):
        return "none"
    if isinstance(default, bool):
        return f"``{str(default).lower()}``"
    if isinstance(default, str):
        return f'``"{default}"``'
    if optional(annotation) == Seconds:
        return f'``"{format_duration(default)}"``' if default else "``0``"
    return f"``{default:g}``"


def _default_of_supervisors(key: str) -> Any:
    """What the framework says where a child says nothing itself."""
    for field in attrs.fields(Supervisor):
        if field.name == key and field.default is not attrs.NOTHING and key != "after":
            return field.default
    return None


def _is_text(target: type) -> bool:
    """Whether values of a class are written as text, such as names of code."""
    return hasattr(target, "parse")


def _types(table: Any) -> dict[str, Any]:
    return get_type_hints(table, include_extras=True)


def setup(app: Sphinx) -> dict[str, object]:
    """Called by Sphinx."""
    app.add_directive("configuration-reference", ConfigurationReference)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
