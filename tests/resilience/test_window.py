from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from trio_services.resilience import Window

steps = st.lists(st.integers(0, 10), max_size=60)


def test_first_of_one_fills_it() -> None:
    assert Window(1, 60).add(0)


def test_as_many_as_it_counts_fill_it() -> None:
    window = Window(3, 60)
    assert [window.add(now) for now in (0, 1, 2)] == [False, False, True]


def test_it_stays_full_as_long_as_as_many_are_in_it() -> None:
    window = Window(3, 10)
    assert [window.add(now) for now in (0, 1, 2, 3, 4, 13, 13.5)] == [
        False, False, True, True, True, False, True
    ]  # fmt: skip


def test_what_happened_exactly_a_window_ago_is_outside() -> None:
    window = Window(2, 8)
    assert [window.add(now) for now in (0, 8, 16)] == [False, False, False]


def test_what_happened_a_moment_less_ago_is_inside() -> None:
    window = Window(2, 8)
    assert [window.add(now) for now in (0, 7.999)] == [False, True]


def test_it_slides() -> None:
    # A window that was emptied every 10 s would see two in each and never three.
    window = Window(3, 10)
    assert [window.add(now) for now in (8, 9, 10)] == [False, False, True]


def test_all_at_one_moment_count() -> None:
    window = Window(3, 0.001)
    assert [window.add(5) for _ in range(4)] == [False, False, True, True]


def test_cleared_it_counts_from_the_start() -> None:
    window = Window(2, 60)
    window.add(0)
    window.add(1)

    window.clear()

    assert [window.add(now) for now in (2, 3)] == [False, True]


def test_times_may_be_negative() -> None:
    window = Window(2, 8)
    assert [window.add(now) for now in (-20, -12.5, -5)] == [False, True, True]


@given(st.integers(1, 8), st.integers(1, 30), steps)
def test_it_is_full_when_so_many_are_less_than_a_window_old(
    count: int, per: int, gaps: list[int]
) -> None:
    window = Window(count, per)
    times: list[int] = []
    for gap in gaps:
        times.append((times[-1] if times else 0) + gap)
        recent = [one for one in times if times[-1] - one < per]
        assert window.add(times[-1]) == (len(recent) >= count)


@pytest.mark.parametrize("count", [1, 5])
def test_it_remembers_no_more_than_it_counts(count: int) -> None:
    window = Window(count, 1e9)
    for now in range(10_000):
        window.add(now)
    assert len(window._times) == count
