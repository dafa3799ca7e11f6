"""Times of day and of the calendar, as cron writes them. Pure: no clock, no waiting.

Theory. An expression says what a wall clock has to read; where clocks are moved, that differs from
the time that passes. Cron knows two kinds of jobs:

- *Times of day*, like ``30 2 * * *``. They run once for each time that the expression names. A time
  that a gap leaves out runs at the end of the gap, once for all that are in it. One that a fold
  repeats runs the first time only.
- *Wildcards*, whose minutes or hours begin with ``*``, like ``*/15 * * * *``. They run whenever the
  clock reads so: as time passes, with no run for what a gap leaves out, and again in what is
  repeated. In their steady rhythm a moved clock is not to be seen.

Source: cron(8) of Debian, "Daylight Saving Time and other time changes". `cronsim` reads the
expressions and finds what matches on a clock that nobody moves; what zones make of that is here.
"""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import attrs
from cronsim import CronSim, CronSimError

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_FIELDS = {
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT",
}
_LONG_AGO = datetime(2000, 1, 1)  # noqa: DTZ001 -- what a clock reads, in no zone
_SECOND = timedelta(seconds=1)
_MOST_MOVED = timedelta(days=2)  # more than any clock was ever moved at once


def _near(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, sorted(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _is_expression(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    text = _ALIASES.get(value, value)
    if text.startswith("@"):
        hint = _near(text, _ALIASES) or f"; it has {', '.join(_ALIASES)}"
        raise ValueError(f"cron has no {text!r}{hint}")
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(
            f"cron {text!r} has {len(fields)} fields, not {len(_FIELDS)}: {', '.join(_FIELDS)}"
        )
    for place, (field, (name, values)) in enumerate(zip(fields, _FIELDS.items(), strict=True)):
        alone = ["*"] * len(fields)
        alone[place] = field
        try:
            if not field.isascii():  # or it may be letters whose capitals are in a name
                raise CronSimError
            CronSim(" ".join(alone), _LONG_AGO)
        except (CronSimError, ValueError):  # the latter of numbers of thousands of digits
            raise ValueError(
                f"cron {text!r}: the {name} {field!r} is wrong; give *, or a list of numbers and "
                f"ranges of {values}, with steps like */5"
            ) from None
    try:
        next(CronSim(text, _LONG_AGO))
    except (CronSimError, StopIteration):
        day, month, weekday = fields[2:]
        raise ValueError(
            f"cron {text!r} never comes: there is no day-of-month {day!r} in the month {month!r}, "
            f"on the day-of-week {weekday!r}"
        ) from None


def _is_timezone(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    try:
        ZoneInfo(value)
    except (LookupError, ValueError, OSError):
        near = _near(value, available_timezones())
        raise ValueError(f"there is no timezone {value!r}{near}") from None


@attrs.frozen
class Cron:
    """Times that a cron expression names, by the clocks of a time zone.

    Args:
        expression: minute, hour, day of month, month and day of week, each a ``*`` or a list of
            numbers, names and ranges with steps; or ``@hourly``, ``@daily``, ``@weekly``,
            ``@monthly``, ``@yearly``. Where both the day of month and of week are given, either
            may match; if one of the two begins with ``*``, both must.
        timezone: a name of the IANA data base, like ``Europe/Berlin``.

    Raises:
        ValueError: the expression is wrong, or names no time that ever comes, or there is no such
            zone. The message says which field.
    """

    expression: str = attrs.field(validator=_is_expression)
    timezone: str = attrs.field(default="UTC", validator=_is_timezone)

    def __str__(self) -> str:
        return f"{self.expression} {self.timezone}"

    def next(self, after: datetime) -> datetime:
        """The first time after a moment, in UTC.

        Not in the zone, since Python compares such times by what clocks read, which folds repeat.
        """
        moment = _in_utc(after).replace(microsecond=0)
        minute, hour = self._fields.split()[:2]
        if minute.startswith("*") or hour.startswith("*"):
            return self._next_of_wildcard(moment)
        return self._next_time_of_day(moment)

    def previous(self, before: datetime) -> datetime:
        """The last time before a moment, in UTC."""
        high = _in_utc(before) - datetime.resolution
        span = timedelta(hours=1)
        while (low := self.next(high - span)) > high:
            span *= 2
        # `low` is one of the times, and there is none between `high` and the moment.
        while (following := self.next(low)) <= high:
            middle = following + (high - following) / 2
            later = self.next(middle)
            low, high = (later, high) if later <= high else (following, middle)
        return low

    def local(self, moment: datetime) -> datetime:
        """The same moment by the clocks of the zone."""
        return moment.astimezone(ZoneInfo(self.timezone))  # which keeps those that it has made

    @property
    def _fields(self) -> str:
        return _ALIASES.get(self.expression, self.expression)

    def _next_time_of_day(self, moment: datetime) -> datetime:
        times = map(self._first_time, self._readings(self._reading(moment)))
        return next(time for time in times if time > moment)  # and not read the second time now

    def _next_of_wildcard(self, moment: datetime) -> datetime:
        while True:
            offset = self._offset(moment + _SECOND)
            time = next(self._readings(moment + offset)) - offset
            until = min(time, moment + _MOST_MOVED)
            if self._offset(until) != offset:
                # The clocks are moved on the way: what do they read from then on?
                moment = self._change(moment + _SECOND, until) - _SECOND
            elif until == time:
                return time
            else:  # nothing is read or repeated until shortly before
                moment = max(until, time - _MOST_MOVED)

    def _readings(self, after: datetime) -> Iterator[datetime]:
        """What a clock reads that nobody moves, each time that the expression matches.

        They are in UTC only so that one can calculate with them.
        """
        return CronSim(self._fields, after)

    def _reading(self, moment: datetime) -> datetime:
        return moment + self._offset(moment)

    def _offset(self, moment: datetime) -> timedelta:
        return self.local(moment).utcoffset() or timedelta()

    def _first_time(self, reading: datetime) -> datetime:
        """When the zone's clocks read so for the first time, or pass over it in a gap."""
        local = reading.replace(tzinfo=ZoneInfo(self.timezone))
        time = local.astimezone(UTC)
        if self._reading(time) == reading:
            return time
        # In a gap, fold tells whether one counts on from before it, or back from after (PEP 495).
        return self._change(local.replace(fold=1).astimezone(UTC), time)

    def _change(self, before: datetime, after: datetime) -> datetime:
        """The second when the clocks are moved, which happens between these two moments."""
        offset = self._offset(before)
        seconds = range(1, (after - before) // _SECOND + 1)
        moved = bisect_left(
            seconds, True, key=lambda s: self._offset(before + s * _SECOND) != offset
        )
        return before + seconds[moved] * _SECOND


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment} is in no time zone; give it a tzinfo")
    return moment.astimezone(UTC)
