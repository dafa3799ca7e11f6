"""Validators of what tables hold: they name the value and what was expected of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..timers import Cron
from ._problems import shown
from ._secret import SecretText

EMBEDDED = "embedded:"
"""What the URL of a database of our own begins with."""

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,47}")


def at_least(least: float) -> Callable[[object, object, Any], None]:
    """A validator of numbers ≥ `least`; None passes."""

    def check(instance: object, attribute: object, value: Any) -> None:
        if value is not None and not value >= least:
            raise ValueError(f"{_number(value)} is too small; expected at least {_number(least)}")

    return check


def at_most(most: float) -> Callable[[object, object, Any], None]:
    """A validator of numbers ≤ `most`; None passes."""

    def check(instance: object, attribute: object, value: Any) -> None:
        if value is not None and not value <= most:
            raise ValueError(f"{_number(value)} is too large; expected at most {_number(most)}")

    return check


def above_zero(instance: object, attribute: object, value: Any) -> None:
    """A validator of numbers > 0; None passes."""
    if value is not None and not value > 0:
        raise ValueError(f"{_number(value)} is too small; expected more than 0")


def is_name(instance: object, attribute: object, value: str) -> None:
    """A validator of names."""
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{shown(value)} is not a name; expected a-z first, then at most 47 of a-z 0-9 _ . -"
        )


def is_cron(instance: object, attribute: object, value: str | None) -> None:
    """A validator of cron expressions; None passes."""
    if value is not None:
        Cron(value)


def is_timezone(instance: object, attribute: object, value: str | None) -> None:
    """A validator of names of time zones; None passes."""
    if value is not None:
        Cron("@daily", value)


def is_package(instance: object, attribute: object, value: tuple[str, ...]) -> None:
    """A validator of names of packages."""
    for name in value:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f'{shown(name)} is not a package; expected text like "inbox"')


def is_database_url(instance: object, attribute: object, value: SecretText) -> None:
    """A validator of URLs of databases that may be in a file which others can read."""
    if value.where != "here":
        return
    check_database_url(value.value)
    if not value.value.startswith(EMBEDDED):
        url = urlsplit(value.value)
        if url.password is not None or "password" in parse_qs(url.query):
            raise ValueError(
                'it holds a password in clear text; write { env = "DATABASE_URL" } or '
                '{ file = "…" }, and put the URL there'
            )


def check_database_url(text: str) -> None:
    """Refuse what cannot be the URL of a database; says nothing of it, as it may be secret.

    Raises:
        ValueError: in one sentence, what is wrong.
    """
    expected = 'expected "embedded:DIRECTORY" or "postgresql://HOST/DATABASE"'
    if "\0" in text or text == EMBEDDED:
        raise ValueError(f"it is not the URL of a database; {expected}")
    if text.startswith(EMBEDDED):
        return
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise ValueError(f"its address is wrong: {error}") from None
    if url.scheme not in ("postgresql", "postgres") or not text.startswith(f"{url.scheme}://"):
        raise ValueError(f"it is not the URL of a database; {expected}")
    if port == 0:
        raise ValueError("its address is wrong: Port out of range 1-65535")


def _number(value: float) -> str:
    """A number as it may have been written: it is a float by now even if it was a whole one."""
    return shown(value).removesuffix(".0")
