from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, strategies as st

from trio_services.timers import Cron

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]  # the last moves by 30 min
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BEGIN, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)


def offset(zone: str, moment: datetime) -> timedelta:
    found = moment.astimezone(ZoneInfo(zone)).utcoffset()
    assert found is not None
    return found


def reading(zone: str, moment: datetime) -> datetime:
    """What the clocks read, as if it were UTC."""
    return moment + offset(zone, moment)


@cache
def changes(zone: str) -> list[datetime]:
    """When the clocks are moved in ten years."""
    found: list[datetime] = []
    for day in range((END - BEGIN).days):
        start = BEGIN + day * DAY
        if offset(zone, start) != offset(zone, start + DAY):
            minutes = [start + n * MINUTE for n in range(1, 24 * 60 + 1)]
            found.append(next(m for m in minutes if offset(zone, m) != offset(zone, start)))
    return found


def moved(zone: str, change: datetime) -> timedelta:
    """By how much; a gap is positive, a fold negative."""
    return offset(zone, change) - offset(zone, change - MINUTE)


def runs(cron: Cron, after: datetime, until: datetime) -> list[datetime]:
    """All times of a span."""
    found: list[datetime] = []
    time = cron.next(after)
    while time <= until:
        found.append(time)
        time = cron.next(time)
    return found


# -- what an expression says ------------------------------------------------------------


def utc(
    year: int,
    month: int,
    day: int,
    hour: int = 0,
    minute: int = 0,
    second: int = 0,
    microsecond: int = 0,
) -> datetime:
    return datetime(year, month, day, hour, minute, second, microsecond, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "following"),
    [
        ("* * * * *", utc(2026, 11, 25, 10, 31)),
        ("*/15 * * * *", utc(2026, 11, 25, 10, 45)),
        ("30 10 * * *", utc(2026, 11, 26, 10, 30)),
        ("0 3 * * *", utc(2026, 11, 26, 3)),
        ("0 9-17/4 * * mon-fri", utc(2026, 11, 25, 13)),
        ("0 0 1 jan *", utc(2027, 1, 1)),
        ("0 0 13 * fri", utc(2026, 11, 27)),
        ("0 0 */10 * fri", utc(2026, 12, 11)),
        ("0 0 29 2 *", utc(2028, 2, 29)),
        ("0 0 * * 7", utc(2026, 11, 29)),
        ("@hourly", utc(2026, 11, 25, 11)),
        ("@daily", utc(2026, 11, 26)),
        ("@weekly", utc(2026, 11, 29)),
        ("@monthly", utc(2026, 12, 1)),
        ("@yearly", utc(2027, 1, 1)),
    ],
)
def test_next_time_is_the_first_that_the_expression_names(
    expression: str, following: datetime
) -> None:
    assert Cron(expression).next(utc(2026, 11, 25, 10, 30)) == following


def test_time_of_a_zone_is_told_in_utc_and_by_its_clocks() -> None:
    cron = Cron("0 3 * * *", "Europe/Berlin")
    time = cron.next(utc(2026, 7, 1))
    assert time.isoformat() == "2026-07-01T01:00:00+00:00"
    assert cron.local(time).isoformat() == "2026-07-01T03:00:00+02:00"


def test_moment_may_be_given_in_any_zone() -> None:
    moment = utc(2026, 7, 1).astimezone(ZoneInfo("Asia/Tokyo"))
    assert Cron("0 3 * * *").next(moment) == utc(2026, 7, 1, 3)


def test_next_time_is_later_than_the_moment_by_however_little() -> None:
    cron = Cron("0 3 * * *")
    assert cron.next(utc(2026, 7, 1, 2, 59, 59, 999_999)) == utc(2026, 7, 1, 3)
    assert cron.next(utc(2026, 7, 1, 3)) == utc(2026, 7, 2, 3)
    assert cron.next(utc(2026, 7, 1, 3, 0, 0, 1)) == utc(2026, 7, 2, 3)


def test_previous_time_is_earlier_than_the_moment_by_however_little() -> None:
    cron = Cron("0 3 * * *")
    assert cron.previous(utc(2026, 7, 1, 3, 0, 0, 1)) == utc(2026, 7, 1, 3)
    assert cron.previous(utc(2026, 7, 1, 3)) == utc(2026, 6, 30, 3)


def test_previous_time_may_be_years_ago() -> None:
    assert Cron("0 0 29 2 *").previous(utc(2026, 7, 1)) == utc(2024, 2, 29)


def test_cron_is_a_value() -> None:
    cron = Cron("0 3 * * *", "Europe/Berlin")
    assert cron == Cron("0 3 * * *", "Europe/Berlin")
    assert hash(cron) == hash(Cron("0 3 * * *", "Europe/Berlin"))
    assert repr(cron) == "Cron(expression='0 3 * * *', timezone='Europe/Berlin')"
    assert str(cron) == "0 3 * * * Europe/Berlin"
    with pytest.raises(AttributeError):
        cron.timezone = "UTC"  # type: ignore[misc]


# -- clocks that are moved --------------------------------------------------------------


@pytest.mark.parametrize("zone", ZONES)
def test_clocks_are_moved_twice_a_year(zone: str) -> None:
    assert len(changes(zone)) == 20  # or what follows proves little


@pytest.mark.parametrize("zone", ZONES)
def test_time_of_day_in_a_gap_runs_once_at_its_end(zone: str) -> None:
    gaps = [change for change in changes(zone) if moved(zone, change) > timedelta()]
    for gap in gaps:
        first = reading(zone, gap) - moved(zone, gap)
        for minutes in (0, 1, 15, 29):
            left_out = first + minutes * MINUTE
            cron = Cron(f"{left_out.minute} {left_out.hour} * * *", zone)
            assert runs(cron, gap - 12 * HOUR, gap + 12 * HOUR) == [gap]
            assert cron.previous(gap + HOUR) == gap


@pytest.mark.parametrize("zone", ZONES)
def test_several_times_in_one_gap_run_once_together(zone: str) -> None:
    gaps = [change for change in changes(zone) if moved(zone, change) > timedelta()]
    for gap in gaps:
        hour = (reading(zone, gap) - moved(zone, gap)).hour
        cron = Cron(f"0,10,20 {hour} * * *", zone)
        assert runs(cron, gap - 12 * HOUR, gap + 12 * HOUR) == [gap]


@pytest.mark.parametrize("zone", ZONES)
def test_time_of_day_in_a_fold_runs_the_first_time_only(zone: str) -> None:
    folds = [change for change in changes(zone) if moved(zone, change) < timedelta()]
    for fold in folds:
        for minutes in (1, 15, 30):
            time = fold - minutes * MINUTE
            repeated = reading(zone, time)
            cron = Cron(f"{repeated.minute} {repeated.hour} * * *", zone)
            assert runs(cron, fold - 12 * HOUR, fold + 12 * HOUR) == [time]
            assert runs(cron, time, fold + 12 * HOUR) == []
            assert cron.previous(fold + minutes * MINUTE) == time


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", ["0 0 * * *", "30 1 * * *", "10 2 * * *", "59 23 * * *"])
def test_time_of_day_runs_once_on_each_day_of_ten_years(expression: str, zone: str) -> None:
    found = runs(Cron(expression, zone), BEGIN, END)
    days = [reading(zone, time).date() for time in found]
    assert all(later - earlier == DAY for earlier, later in pairwise(days))
    assert len(days) in (3652, 3653, 3654)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", ["* * * * *", "*/15 * * * *", "*/30 * * * *"])
def test_wildcard_keeps_its_rhythm_whatever_the_clocks_do(expression: str, zone: str) -> None:
    cron = Cron(expression, zone)
    for change in changes(zone):
        found = runs(cron, change - 3 * HOUR, change + 3 * HOUR)
        assert len({later - earlier for earlier, later in pairwise(found)}) == 1
        assert change in found


@pytest.mark.parametrize("zone", ZONES[:2])
def test_every_hour_is_every_hour_that_passes(zone: str) -> None:
    for change in changes(zone):
        found = runs(Cron("@hourly", zone), change - 5 * HOUR, change + 5 * HOUR)
        assert [later - earlier for earlier, later in pairwise(found)] == [HOUR] * 9


def test_wildcard_within_an_hour_runs_as_often_as_the_clock_reads_so() -> None:
    cron = Cron("*/30 2 * * *", "Europe/Berlin")
    assert len(runs(cron, utc(2026, 3, 28, 12), utc(2026, 3, 29, 12))) == 0
    assert len(runs(cron, utc(2026, 10, 24, 12), utc(2026, 10, 25, 12))) == 4


def test_date_that_a_zone_left_out_runs_once_at_its_end() -> None:
    # Samoa went to the other side of the date line, and had no 30th of December in 2011.
    cron = Cron("30 2 30 12 *", "Pacific/Apia")
    assert cron.local(cron.next(utc(2011, 12, 1))).isoformat() == "2011-12-31T00:00:00+14:00"


@cache
def minutes_around(zone: str, change: datetime) -> list[tuple[datetime, datetime]]:
    """Each minute of some days, and what the clocks read then."""
    start = change - 3 * DAY
    moments = [start + n * MINUTE for n in range(6 * 24 * 60)]
    return [(moment, reading(zone, moment)) for moment in moments]


@cache
def readings_so_far(zone: str, change: datetime) -> list[datetime]:
    """The latest reading that there was up to each minute."""
    latest = datetime.min.replace(tzinfo=UTC)
    return [latest := max(latest, read) for _, read in minutes_around(zone, change)]


def by_definition(
    zone: str, change: datetime, minutes: set[int], hours: set[int], *, wildcard: bool
) -> list[datetime]:
    """The times of some days, found by looking at each minute."""
    around = minutes_around(zone, change)
    if wildcard:
        return [at for at, read in around if read.minute in minutes and read.hour in hours]
    # When the clock reads so, or later, for the first time.
    so_far = readings_so_far(zone, change)
    wanted = [so_far[0] + n * MINUTE for n in range(int((so_far[-1] - so_far[0]) / MINUTE))]
    return sorted(
        {
            around[bisect_left(so_far, read)][0]
            for read in wanted
            if read.minute in minutes and read.hour in hours
        }
    )


@st.composite
def some_numbers(draw: st.DrawFn, below: int) -> tuple[str, set[int]]:
    """A field, and the numbers that it means."""
    if draw(st.booleans()):
        step = draw(st.integers(1, below))
        return f"*/{step}", set(range(0, below, step))
    numbers = draw(st.sets(st.integers(0, below - 1), min_size=1, max_size=5))
    return ",".join(map(str, numbers)), numbers


CHANGES = [(zone, change) for zone in ZONES for change in changes(zone)]


@given(
    where=st.sampled_from(CHANGES),
    minute=some_numbers(60),
    hour=st.one_of(
        some_numbers(24),
        st.sampled_from([(str(n), {n}) for n in (1, 2)]),
        st.just(("*", set(range(24)))),
    ),
    seconds=st.integers(-4 * 3600, 4 * 3600),
)
@example(CHANGES[-1], ("0", {0}), ("*/6", {0, 6, 12, 18}), -14400)
@example(CHANGES[-2], ("*/15", {0, 15, 30, 45}), ("2", {2}), -900)
def test_times_around_a_change_are_those_that_the_definition_gives(
    where: tuple[str, datetime],
    minute: tuple[str, set[int]],
    hour: tuple[str, set[int]],
    seconds: int,
) -> None:
    zone, change = where
    cron = Cron(f"{minute[0]} {hour[0]} * * *", zone)
    wildcard = minute[0].startswith("*") or hour[0].startswith("*")
    expected = by_definition(zone, change, minute[1], hour[1], wildcard=wildcard)
    moment = change + timedelta(seconds=seconds)
    later = [time for time in expected if time > moment][:30]
    assert runs(cron, moment, later[-1]) == later
    assert cron.previous(moment) == [time for time in expected if time < moment][-1]


@given(
    st.sampled_from(["0 0 29 2 *", "*/7 3 1 1 *", "0 0 1 */3 *", "5 4 * * sun", "* * 31 12 *"]),
    st.sampled_from(ZONES),
    st.floats(0, 2e9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
)
def test_nothing_is_between_the_previous_time_and_the_next(
    expression: str, zone: str, moment: datetime
) -> None:
    cron = Cron(expression, zone)
    previous, following = cron.previous(moment), cron.next(moment)
    assert previous < moment < following
    assert cron.next(previous) in (moment, following)
    assert cron.previous(following) in (previous, moment)


# -- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "0 fields, not 5"),
        ("   ", "0 fields, not 5"),
        ("* * * *", "4 fields, not 5: minute, hour, day-of-month, month, day-of-week"),
        ("* * * * * *", "6 fields"),
        ("* * * * * * *", "7 fields"),
        ("60 * * * *", "the minute '60' is wrong.* 0-59"),
        ("-1 * * * *", "minute '-1'"),
        ("*/0 * * * *", r"minute '\*/0'"),
        ("5-1 * * * *", "minute '5-1'"),
        ("1,,2 * * * *", "minute '1,,2'"),
        ("1.5 * * * *", "minute '1.5'"),
        ("\N{ARABIC-INDIC DIGIT THREE} * * * *", "minute '\N{ARABIC-INDIC DIGIT THREE}'"),
        ("9" * 5000 + " * * * *", "minute '999"),
        ("* 24 * * *", "hour '24' is wrong.* 0-23"),
        ("0 0 0 * *", "day-of-month '0' is wrong.* 1-31"),
        ("0 0 32 * *", "day-of-month '32'"),
        ("0 0 * 13 *", "month '13' is wrong.* 1-12 or JAN-DEC"),
        ("0 0 * foo *", "month 'foo'"),
        ("0 0 * * 8", "day-of-week '8' is wrong.* 0-7 or SUN-SAT"),
        ("0 0 * * funday", "day-of-week 'funday'"),
        ("0 0 * * \N{LATIN SMALL LETTER LONG S}un", "day-of-week"),
        ("0 0 31 2 *", "never comes: there is no day-of-month '31' in the month '2'"),
        ("0 0 31 4,6 *", "day-of-month '31' in the month '4,6'"),
        ("0 0 */29 2 mon#5", r"day-of-month '\*/29' in the month '2', on the day-of-week 'mon#5'"),
        ("@dayly", "no '@dayly'; did you mean '@daily'"),
        ("@reboot", "no '@reboot'; it has @hourly, @daily, @weekly, @monthly, @yearly"),
    ],
)
def test_bad_expression_is_refused_and_what_is_wrong_named(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cron(expression)


@pytest.mark.parametrize(
    ("timezone", "message"),
    [
        ("Europe/Berln", "no timezone 'Europe/Berln'; did you mean 'Europe/Berlin'"),
        ("Berlin", "did you mean 'Europe/Berlin'"),
        ("Mars/Olympus_Mons", "no timezone 'Mars/Olympus_Mons'"),
        ("", "no timezone ''"),
        ("Europe", "no timezone 'Europe'"),
        ("/etc/passwd", "no timezone '/etc/passwd'"),
        ("../../etc/passwd", "no timezone"),
        ("\0", "no timezone"),
    ],
)
def test_unknown_zone_is_refused_and_a_near_one_named(timezone: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cron("* * * * *", timezone)


def test_moment_in_no_zone_is_refused() -> None:
    nowhere = datetime(2026, 7, 1)  # noqa: DTZ001
    with pytest.raises(ValueError, match="2026-07-01 00:00:00 is in no time zone"):
        Cron("* * * * *").next(nowhere)
    with pytest.raises(ValueError, match="no time zone"):
        Cron("* * * * *").previous(nowhere)


@given(st.text("0123456789*/-,LW#@ monjan", max_size=20))
def test_any_text_is_an_expression_or_refused_as_one(text: str) -> None:
    try:
        cron = Cron(text)
    except ValueError:
        return
    assert cron.next(BEGIN) > BEGIN
