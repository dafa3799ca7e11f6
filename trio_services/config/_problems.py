"""How a problem is worded, and where it points. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from typing import Any, TypeGuard, cast

import attrs

KeyPath = tuple[str | int, ...]
"""The way to a value: names of keys, and positions in arrays."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SHOWN = 60  # characters of a value: enough to find it, and little of what may be a secret


@attrs.frozen
class Problem:
    """One thing to mend: the key that is wrong, and a sentence about it."""

    key: KeyPath
    text: str


@attrs.frozen
class Origins:
    """Where each value came from, so that a problem points to the place that has to be changed.

    Args:
        source: the file's name, as its reader knows it.
        overrides: for each key that did not come from the file, what it came from, such as
            ``--set log.level``.
    """

    source: str
    overrides: Mapping[KeyPath, str] = attrs.field(factory=dict[KeyPath, str])

    def line(self, problem: Problem) -> str:
        """The problem as its reader sees it: ``file:key: what is wrong``."""
        key = problem.key
        for length in range(len(key), 0, -1):
            if (origin := self.overrides.get(key[:length])) is not None:
                return self._line(origin, key[length:], problem.text)
        return self._line(self.source, key, problem.text)

    def _line(self, origin: str, key: KeyPath, text: str) -> str:
        # A position in an array goes with what came from elsewhere: `--set host.imports[0]`.
        colon = ":" if key and isinstance(key[0], str) else ""
        return one_line(f"{origin}{colon}{dotted(key)}: {text}")


class MisfitError(ValueError):
    """A value does not fit its key; the message is for people."""


def as_table(value: object, *, secret: bool = False) -> dict[str, Any]:
    """The value, which has to be a table.

    Args:
        value: what there is.
        secret: whether it may be what was to be in the table, and must not be shown.

    Raises:
        MisfitError: it is none.
    """
    if not is_table(value):
        raise MisfitError(f"{kind_of(value) if secret else shown(value)} is not a table")
    return value


def is_table(value: object) -> TypeGuard[dict[str, Any]]:
    """Whether a value is a table of TOML."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Whether a value is an array of TOML."""
    return isinstance(value, list)


def dotted(key: KeyPath) -> str:
    """A key path as TOML writes it, with positions in brackets: ``host.imports[0]``."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE_KEY.fullmatch(part) else quoted(part))
    return text


def quoted(text: str) -> str:
    """A text in quotes, shortened, and with nothing in it that a terminal or a log obeys."""
    if len(text) > _SHOWN:
        text = text[: _SHOWN - 1] + "…"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{one_line(escaped)}"'


def one_line(text: str) -> str:
    r"""The same text with every control character and line break written as ``\n``, ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def shown(value: object) -> str:
    """A value as its writer knows it, such as ``"info"``, ``true``, ``an array``."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quoted(value)
        case int():
            # Python refuses to write whole numbers of more than some thousands of digits.
            return str(value) if value.bit_length() <= 256 else "a number of too many digits"
        case float():
            return repr(value)
        case datetime() | date() | time():
            return value.isoformat()
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return quoted(str(value))


def kind_of(value: object) -> str:
    """Of which kind a value is, without the value, such as ``text``."""
    match value:
        case str():
            return "text"
        case list() | dict():
            return shown(cast("object", value))
        case _:
            return "a value"


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean "restart"?``, or nothing where no known word is near."""
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {quoted(near[0])}?" if near else ""


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What is wrong with a key that nothing reads."""
    known = sorted(known)
    hint = suggestion(key, known) or (f"; expected one of {', '.join(known)}" if known else "")
    return f"unknown key{hint}"
