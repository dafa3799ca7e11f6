"""Validators of what tables hold: they name the value and what was expected of it. Pure."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs

from ..secrets import Secret
from ..telemetry import check_alert_url
from ..timers import Cron
from ._problems import shown

EMBEDDED = "embedded:"
"""What the URL of a database of our own begins with."""

NAME = re.compile(r"[a-z][a-z0-9_.-]{0,47}")


@attrs.frozen
class Bound:
    """A validator of numbers in a range; None passes.

    Args:
        least: the smallest.
        above: what they have to be larger than.
        most: the largest.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None

    def __call__(self, instance: object, attribute: object, value: Any) -> None:
        """Refuse a number that is out of the range.

        Raises:
            ValueError: it is.
        """
        if value is None:
            return
        if self.least is not None and not value >= self.least:
            expected = f"too small; expected at least {_number(self.least)}"
        elif self.above is not None and not value > self.above:
            expected = f"too small; expected more than {_number(self.above)}"
        elif self.most is not None and not value <= self.most:
            expected = f"too large; expected at most {_number(self.most)}"
        else:
            return
        raise ValueError(f"{_number(value)} is {expected}")


def at_least(least: float) -> Bound:
    """A validator of numbers ≥ `least`; None passes."""
    return Bound(least=least)


def at_most(most: float) -> Bound:
    """A validator of numbers ≤ `most`; None passes."""
    return Bound(most=most)


above_zero = Bound(above=0)
"""A validator of numbers > 0; None passes."""


def is_name(instance: object, attribute: object, value: str) -> None:
    """A validator of names."""
    if not NAME.fullmatch(value):
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


def is_database_url(instance: object, attribute: object, value: str | Secret) -> None:
    """A validator of URLs of databases; in clear text they hold no password."""
    if isinstance(value, Secret):
        check_database_url(value.reveal())
        return
    check_database_url(value)
    if not value.startswith(EMBEDDED):
        url = urlsplit(value)
        if url.password is not None or "password" in parse_qs(url.query):
            raise ValueError(
                'it holds a password in clear text; write { env = "DATABASE_URL" } or '
                '{ file = "…" }, and put the URL there'
            )


def is_alert_url(instance: object, attribute: object, value: str | Secret) -> None:
    """A validator of addresses of alerts."""
    check_alert_url(value.reveal() if isinstance(value, Secret) else value)


def is_filled(instance: object, attribute: object, value: tuple[object, ...]) -> None:
    """A validator of arrays that must not be empty."""
    if not value:
        raise ValueError("it is empty; expected at least one")


def check_database_url(text: str) -> None:
    """Refuse what cannot be the URL of a database; says nothing of it, as it may be secret.

    Raises:
        ValueError: in one sentence, what is wrong.
    """
    expected = 'expected "embedded:DIRECTORY" or "postgresql://HOST/DATABASE"'
    # Python's parser would leave out line breaks, and see another address than the driver.
    if any(char < " " for char in text) or text == EMBEDDED:
        raise ValueError(f"it is not the URL of a database; {expected}")
    if text.startswith(EMBEDDED):
        return
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:  # whose own words may quote a part of the password
        raise ValueError(f"its address is wrong; {expected}") from None
    if url.scheme not in ("postgresql", "postgres") or not text.startswith(f"{url.scheme}://"):
        raise ValueError(f"it is not the URL of a database; {expected}")
    if port == 0:
        raise ValueError(f"its address is wrong; {expected}")


def rules_of(validator: Any) -> list[Any]:
    """The single rules of a field's validator, which attrs has made one of."""
    if validator is None:
        return []
    parts: list[Any] | None = getattr(validator, "_validators", None)
    return [validator] if parts is None else [rule for part in parts for rule in rules_of(part)]


def _number(value: float) -> str:
    """A number as it may have been written: it is a float by now even if it was a whole one."""
    return shown(value).removesuffix(".0")
