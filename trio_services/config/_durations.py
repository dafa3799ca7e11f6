"""Durations: seconds in Python, a number of seconds or text like ``"1.5s"`` in TOML. Pure."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

Seconds = Annotated[float, "seconds"]
"""A duration in a table or in a class of options; Python sees a float."""

_UNITS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
# ASCII digits and not many of them: what is written by hand has no reason to be longer.
DURATION = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,400})?) ?(ms|s|m|h|d)")


def parse_duration(text: str) -> float:
    """Seconds from a text: a number and one of the units ms, s, m, h, d.

    Raises:
        ValueError: it is written in another way.
    """
    match = DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration")
    # In decimal, so that "0.1h" is 360 s and not 360.00000000000006 s.
    return float(Decimal(match[1]) * _UNITS[match[2]])


def format_duration(seconds: float) -> str:
    """The text for a number of seconds, which `parse_duration` reads back exactly.

    Args:
        seconds: 0 ≤ seconds < 10¹⁸.
    """
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % int(_UNITS[unit]) == 0:
            return f"{int(seconds) // int(_UNITS[unit])}{unit}"
    if 0 < seconds < 1:
        return f"{Decimal(repr(seconds)) * 1000:f}".rstrip("0").removesuffix(".") + "ms"
    return f"{seconds!r}s".replace(".0s", "s")
