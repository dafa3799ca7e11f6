from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from trio_services.resilience import Backoff

seconds = st.floats(0, 1e9, allow_subnormal=False)
backoffs = st.builds(
    Backoff,
    initial=seconds,
    factor=st.floats(1, 1e9),
    cap=seconds,
    jitter=st.floats(0, 1),
)
repetitions = st.one_of(st.integers(1, 20), st.integers(1, 5000), st.integers(1, 10**400))
draws = st.floats(0, 1, exclude_max=True)


@given(backoffs, repetitions, draws)
def test_delay_is_between_nothing_and_the_cap(backoff: Backoff, n: int, drawn: float) -> None:
    assert 0 <= backoff.delay(n, lambda: drawn) <= backoff.cap


@given(backoffs, repetitions, draws)
def test_jitter_only_shortens_and_by_no_more_than_its_share(
    backoff: Backoff, n: int, drawn: float
) -> None:
    exact = Backoff(initial=backoff.initial, factor=backoff.factor, cap=backoff.cap, jitter=0)
    full = exact.delay(n)
    delay = backoff.delay(n, lambda: drawn)
    assert delay <= full
    assert delay >= full * (1 - backoff.jitter) * (1 - 1e-9)


@given(backoffs, st.integers(1, 5000), st.integers(0, 5000))
def test_later_repetition_never_waits_less(backoff: Backoff, n: int, more: int) -> None:
    exact = Backoff(initial=backoff.initial, factor=backoff.factor, cap=backoff.cap, jitter=0)
    assert exact.delay(n) <= exact.delay(n + more)


@given(backoffs, repetitions)
def test_without_jitter_nothing_is_drawn(backoff: Backoff, n: int) -> None:
    def draw() -> float:
        raise AssertionError("drawn")

    exact = Backoff(initial=backoff.initial, factor=backoff.factor, cap=backoff.cap, jitter=0)
    assert exact.delay(n, draw) == exact.delay(n, draw)


def test_without_jitter_delays_are_exact() -> None:
    backoff = Backoff(initial=0.5, factor=2, cap=60, jitter=0)
    assert [backoff.delay(n) for n in range(1, 10)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


def test_with_a_factor_of_1_all_delays_are_alike() -> None:
    backoff = Backoff(initial=3, factor=1.0, cap=60, jitter=0)
    assert {backoff.delay(n) for n in (1, 2, 1024, 1025, 10**9)} == {3}


def test_initial_delay_above_the_cap_is_capped() -> None:
    assert Backoff(initial=100, cap=60, jitter=0).delay(1) == 60


def test_cap_of_0_never_waits() -> None:
    assert Backoff(cap=0).delay(7) == 0


@pytest.mark.parametrize("factor", [1.0, 2.0, 10.0])
def test_zero_backoff_repeats_at_once_however_often(factor: float) -> None:
    backoff = Backoff(initial=0, factor=factor)
    assert [backoff.delay(n) for n in (1, 2, 310, 1024, 1025, 1026, 10**6)] == [0] * 7


@pytest.mark.parametrize("n", [1024, 1025, 1026, 5000, 10**9, 10**400])
def test_delay_that_grew_too_large_for_a_float_is_capped(n: int) -> None:
    assert Backoff(initial=0.5, factor=2.0, cap=60, jitter=0).delay(n) == 60


def test_delay_of_whole_numbers_is_a_float() -> None:
    # A power of whole numbers is exact however long it takes: 2 ** 10**9 is for ever.
    assert isinstance(Backoff(initial=1, factor=2, cap=2**70, jitter=0).delay(7), float)


def test_slowly_growing_delay_reaches_its_cap() -> None:
    backoff = Backoff(initial=0.001, factor=1.01, cap=60, jitter=0)
    assert backoff.delay(1000) == pytest.approx(0.001 * 1.01**999)
    assert backoff.delay(1101) == pytest.approx(0.001 * 1.01**1100)
    assert backoff.delay(2000) == 60


def test_jitter_takes_a_share_of_the_delay() -> None:
    backoff = Backoff(initial=8, jitter=0.25)
    assert backoff.delay(1, lambda: 0.0) == 8
    assert backoff.delay(1, lambda: 0.5) == 7
    assert Backoff(initial=8, jitter=1).delay(1, lambda: 0.5) == 4


def test_full_jitter_covers_everything_below_the_delay() -> None:
    draw = random.Random(7).random
    delays = [Backoff(initial=1, jitter=1).delay(1, draw) for _ in range(1000)]
    assert min(delays) < 0.01
    assert max(delays) > 0.99
    assert sum(delays) / 1000 == pytest.approx(0.5, abs=0.05)


def test_delays_differ_from_one_another_by_default() -> None:
    backoff = Backoff()
    delays = [backoff.delay(1) for _ in range(20)]
    assert len(set(delays)) == 20
    assert all(0.375 <= delay <= 0.5 for delay in delays)


def test_same_seed_gives_the_same_delays() -> None:
    first, second = (
        [Backoff().delay(n, draw) for n in range(1, 9)]
        for draw in (random.Random(1).random, random.Random(1).random)
    )
    assert first == second


def test_defaults_are_those_of_the_contract() -> None:
    backoff = Backoff()
    assert (backoff.factor, backoff.cap, backoff.jitter) == (2, 60, 0.25)
    assert (backoff.initial, backoff.reset_after) == (0.5, 60)


def test_delays_double_until_the_cap() -> None:
    backoff = Backoff(jitter=0, cap=1e9)
    assert all(
        after == 2 * before for before, after in pairwise(backoff.delay(n) for n in range(1, 30))
    )


@pytest.mark.parametrize("field", ["initial", "factor", "cap", "jitter", "reset_after"])
@pytest.mark.parametrize("value", [-1, -1e-9, -math.inf, math.nan])
def test_negative_and_meaningless_numbers_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Backoff(**{field: value})


@pytest.mark.parametrize("field", ["initial", "factor", "cap", "jitter"])
def test_infinite_numbers_are_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Backoff(**{field: math.inf})


@pytest.mark.parametrize(("field", "value"), [("factor", 0.99), ("jitter", 1.01)])
def test_shrinking_and_more_than_full_jitter_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Backoff(**{field: value})


def test_backoff_may_never_count_from_the_start_again() -> None:
    assert Backoff(reset_after=math.inf).reset_after == math.inf


@pytest.mark.parametrize("n", [0, -1])
def test_repetitions_count_from_1(n: int) -> None:
    with pytest.raises(ValueError, match="from 1"):
        Backoff().delay(n)


def test_backoff_is_a_value() -> None:
    backoff = Backoff()
    with pytest.raises(AttributeError):
        backoff.cap = 1  # type: ignore[misc]
    assert backoff == Backoff()
    assert hash(backoff) == hash(Backoff())
