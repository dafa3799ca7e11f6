"""Validators of what tables hold: they name the value and what was expected of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..timers import Cron
from ._problems import shown

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


def _number(value: float) -> str:
    """A number as it may have been written: it is a float by now even if it was a whole one."""
    return shown(value).removesuffix(".0")
