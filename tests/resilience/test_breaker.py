from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trio_services.resilience import BREAKER_TRANSITIONS, Breaker, BreakerState, Circuit

if TYPE_CHECKING:
    from collections.abc import Callable

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN

EXACT = Breaker(failures=3, within=60, reset_after=30, cap=600, jitter=0)


def state_of(circuit: Circuit) -> BreakerState:
    """Its state now; a call, so that a type checker does not take it for a constant."""
    return circuit.state


def opened(breaker: Breaker = EXACT, at: float = 0) -> Circuit:
    """A circuit that has just opened for the first time."""
    circuit = Circuit(breaker)
    while not circuit.failed(at):
        pass
    return circuit


def half_open(breaker: Breaker = EXACT, at: float = 0) -> Circuit:
    """A circuit whose first probe has begun."""
    circuit = opened(breaker, at)
    circuit.probe()
    return circuit


# -- each row of the table ---------------------------------------------------------------


def test_new_circuit_is_closed() -> None:
    circuit = Circuit(EXACT)
    assert circuit.state is CLOSED
    assert circuit.opened == 0
    assert circuit.due == math.inf
    assert not circuit.given_up


def test_last_failure_too_many_opens_it() -> None:
    circuit = Circuit(EXACT)
    assert [circuit.failed(now) for now in (100, 110, 120)] == [False, False, True]
    assert (circuit.state, circuit.opened, circuit.due) == (OPEN, 1, 150)


def test_failures_that_are_far_apart_do_not_open_it() -> None:
    circuit = Circuit(EXACT)
    assert not any(circuit.failed(30.0 * n) for n in range(100))
    assert circuit.state is CLOSED


def test_single_failure_opens_it_if_it_takes_no_more() -> None:
    circuit = Circuit(attrs.evolve(EXACT, failures=1))
    assert circuit.failed(5)
    assert circuit.due == 35


def test_closed_it_can_be_tripped_by_hand() -> None:
    circuit = Circuit(EXACT)
    circuit.trip(7)
    assert (circuit.state, circuit.opened, circuit.due) == (OPEN, 1, 37)


def test_open_it_lets_a_probe_begin() -> None:
    circuit = opened()
    circuit.probe()
    assert circuit.state is HALF_OPEN
    assert circuit.opened == 1


def test_open_it_can_be_reset_by_hand() -> None:
    circuit = opened()
    circuit.close()
    assert (circuit.state, circuit.opened, circuit.due) == (CLOSED, 0, math.inf)


def test_failing_probe_opens_it_for_twice_as_long() -> None:
    circuit = half_open()
    assert circuit.failed(31)
    assert (circuit.state, circuit.opened, circuit.due) == (OPEN, 2, 91)


def test_single_failure_of_a_probe_is_enough() -> None:
    circuit = half_open(attrs.evolve(EXACT, failures=100))
    assert circuit.failed(1e6)  # long after those that opened it
    assert circuit.state is OPEN


def test_half_open_it_can_be_tripped_by_hand() -> None:
    circuit = half_open()
    circuit.trip(31)
    assert circuit.state is OPEN
    assert circuit.due > 31


def test_trip_of_a_half_open_one_is_no_failing_probe() -> None:
    circuit = half_open(attrs.evolve(EXACT, give_up_after=1))
    circuit.trip(31)
    assert not circuit.given_up
    assert circuit.opened == 1
    assert circuit.due == 61


def test_healthy_probe_closes_it() -> None:
    circuit = half_open()
    circuit.close()
    assert (circuit.state, circuit.opened, circuit.due) == (CLOSED, 0, math.inf)


def test_closed_again_it_forgets_the_failures() -> None:
    circuit = half_open()
    circuit.close()
    assert [circuit.failed(40), circuit.failed(41), circuit.failed(42)] == [False, False, True]


def test_closed_again_it_counts_openings_from_the_start() -> None:
    circuit = half_open()
    circuit.failed(31)
    circuit.probe()
    circuit.close()
    circuit.trip(100)
    assert (circuit.opened, circuit.due) == (1, 130)


# -- what is not in the table ------------------------------------------------------------


@pytest.mark.parametrize("make", [Circuit, half_open])
def test_probe_begins_only_when_it_is_open(make: Callable[[Breaker], Circuit]) -> None:
    circuit = make(EXACT)
    with pytest.raises(RuntimeError, match=str(circuit.state)):
        circuit.probe()


def test_late_failures_change_nothing_while_it_is_open() -> None:
    circuit = opened()
    assert not any(circuit.failed(now) for now in range(1, 29))
    assert (circuit.state, circuit.opened, circuit.due) == (OPEN, 1, 30)


def test_late_failures_while_open_do_not_count_after_a_reset() -> None:
    circuit = opened()
    for now in range(1, 29):
        circuit.failed(now)
    circuit.close()
    assert not circuit.failed(29)


def test_close_of_a_closed_one_forgets_its_failures() -> None:
    circuit = Circuit(EXACT)
    circuit.failed(0)
    circuit.failed(1)
    circuit.close()
    assert circuit.state is CLOSED
    assert not circuit.failed(2)


def test_trip_of_an_open_one_keeps_it_open_for_as_long_again() -> None:
    circuit = opened()
    circuit.trip(20)
    assert (circuit.state, circuit.opened, circuit.due) == (OPEN, 1, 50)


def test_trips_do_not_lengthen_the_delay() -> None:
    circuit = opened()
    for now in range(100):
        circuit.trip(now)
    assert circuit.due == 99 + 30


def test_table_has_no_other_transitions() -> None:
    assert dict(BREAKER_TRANSITIONS) == {
        CLOSED: {OPEN},
        OPEN: {HALF_OPEN, CLOSED},
        HALF_OPEN: {OPEN, CLOSED},
    }


def test_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        BREAKER_TRANSITIONS[CLOSED] = frozenset()  # type: ignore[index]


# -- delays and jitter -------------------------------------------------------------------


def delays_of(breaker: Breaker, count: int) -> list[float]:
    """How long a circuit whose probes all fail at once stays open, time after time."""
    circuit = opened(breaker)
    delays = [circuit.due]
    for _ in range(count - 1):
        begun = circuit.due
        circuit.probe()
        circuit.failed(begun)
        delays.append(circuit.due - begun)
    return delays


def test_delays_double_up_to_the_cap() -> None:
    assert delays_of(EXACT, 8) == [30, 60, 120, 240, 480, 600, 600, 600]


def test_first_delay_above_the_cap_is_capped() -> None:
    assert delays_of(attrs.evolve(EXACT, reset_after=100, cap=40), 3) == [40, 40, 40]


def test_delay_stays_at_the_cap_for_years() -> None:
    circuit = opened()
    for _ in range(3000):  # past the largest power of two that is a float
        circuit.probe()
        circuit.failed(0)
    assert circuit.due == 600


def test_jitter_shortens_by_no_more_than_its_share() -> None:
    breaker = attrs.evolve(EXACT, failures=1, jitter=0.5)
    shortest = Circuit(breaker, lambda: math.nextafter(1, 0))
    longest = Circuit(breaker, lambda: 0.0)
    shortest.failed(0)
    longest.failed(0)
    assert shortest.due == pytest.approx(15)
    assert longest.due == 30


def test_delays_are_jittered_by_default() -> None:
    dues = {opened(Breaker()).due for _ in range(20)}
    assert len(dues) == 20
    assert all(27 <= due <= 30 for due in dues)


def test_trip_is_jittered_too() -> None:
    dues: set[float] = set()
    for _ in range(20):
        circuit = Circuit(Breaker())
        circuit.trip(0)
        dues.add(circuit.due)
    assert len(dues) == 20


@given(
    st.builds(
        Breaker,
        failures=st.just(1),
        reset_after=st.floats(1e-3, 1e6),
        cap=st.floats(1e-3, 1e6),
        jitter=st.floats(0, 1),
    ),
    st.integers(0, 2**32),
    st.floats(0, 1e6),
)
def test_delay_is_between_what_jitter_leaves_and_the_cap(
    breaker: Breaker, seed: int, now: float
) -> None:
    circuit = Circuit(breaker, random.Random(seed).random)
    for number in range(1, 15):
        circuit.failed(now)
        full = min(breaker.reset_after * 2 ** (number - 1), breaker.cap)
        delay = circuit.due - now
        slack = 1e-6
        assert full * (1 - breaker.jitter) - slack <= delay <= full + slack
        circuit.probe()


# -- giving up ---------------------------------------------------------------------------


@pytest.mark.parametrize("give_up_after", [1, 2, 5])
def test_it_gives_up_at_the_failing_probe_after_so_many_openings(give_up_after: int) -> None:
    circuit = opened(attrs.evolve(EXACT, give_up_after=give_up_after))
    for _ in range(give_up_after - 1):
        circuit.probe()
        circuit.failed(0)
        assert not circuit.given_up
    circuit.probe()
    assert circuit.failed(0)
    assert circuit.given_up
    assert (circuit.state, circuit.due) == (OPEN, math.inf)


def test_it_never_gives_up_by_default() -> None:
    circuit = opened()
    for _ in range(1000):
        circuit.probe()
        circuit.failed(0)
        assert not circuit.given_up


def test_healthy_probe_starts_the_count_of_openings_anew() -> None:
    circuit = opened(attrs.evolve(EXACT, give_up_after=2))
    for _ in range(10):
        circuit.probe()
        circuit.failed(0)
        circuit.probe()
        circuit.close()
        circuit.trip(0)
        assert not circuit.given_up


def test_given_up_it_can_be_reset_by_hand() -> None:
    circuit = half_open(attrs.evolve(EXACT, give_up_after=1))
    circuit.failed(0)
    circuit.close()
    assert not circuit.given_up
    assert circuit.state is CLOSED


def test_closed_one_has_not_given_up_although_it_is_never_due() -> None:
    circuit = Circuit(EXACT)
    assert circuit.due == math.inf
    assert not circuit.given_up


def test_trip_of_one_that_has_given_up_leaves_it_given_up() -> None:
    circuit = half_open(attrs.evolve(EXACT, give_up_after=1))
    circuit.failed(0)
    circuit.trip(1)
    assert circuit.given_up


# -- bad arguments -----------------------------------------------------------------------


def refused(**arguments: object) -> str:
    """What a breaker with these says."""
    with pytest.raises((ValueError, TypeError)) as caught:
        Breaker(**arguments)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.mark.parametrize("name", ["failures", "give_up_after"])
@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, math.nan, math.inf, "3"])
def test_count_that_is_none_is_refused_by_name(name: str, value: object) -> None:
    assert name in refused(**{name: value})


@pytest.mark.parametrize("name", ["failures", "give_up_after"])
def test_truth_is_no_count(name: str) -> None:
    assert name in refused(**{name: True})


@pytest.mark.parametrize("name", ["within", "reset_after", "cap"])
@pytest.mark.parametrize("value", [0, -1, -1e-9, math.nan, math.inf, -math.inf])
def test_seconds_that_are_not_above_0_are_refused_by_name(name: str, value: float) -> None:
    assert name in refused(**{name: value})


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, -math.inf])
def test_healthy_after_that_is_no_time_is_refused_by_name(value: float) -> None:
    assert "healthy_after" in refused(healthy_after=value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf])
def test_jitter_that_is_no_share_is_refused_by_name(value: float) -> None:
    assert "jitter" in refused(jitter=value)


def test_healthy_after_0_and_all_jitter_are_allowed() -> None:
    breaker = Breaker(healthy_after=0, jitter=1)
    assert (breaker.healthy_after, breaker.jitter) == (0, 1)


def test_defaults_are_those_of_the_contract() -> None:
    breaker = Breaker()
    assert (breaker.failures, breaker.within, breaker.reset_after) == (5, 60, 30)
    assert (breaker.cap, breaker.healthy_after, breaker.give_up_after) == (600, 10, None)


def test_breaker_is_a_value() -> None:
    assert Breaker() == Breaker()
    assert hash(Breaker()) == hash(Breaker())
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Breaker().failures = 1  # type: ignore[misc]


def test_circuits_of_one_breaker_do_not_share_their_failures() -> None:
    first, second = Circuit(EXACT), Circuit(EXACT)
    first.failed(0)
    first.failed(1)
    assert not second.failed(2)
    assert first.failed(3)


# -- any sequence ------------------------------------------------------------------------


class AnySequence(RuleBasedStateMachine):
    """A circuit against the table written down once more, in the simplest way."""

    @initialize(
        failures=st.integers(1, 4),
        within=st.integers(1, 20),
        give_up_after=st.none() | st.integers(1, 3),
    )
    def make(self, failures: int, within: int, give_up_after: int | None) -> None:
        self.breaker = Breaker(failures, within, 8, 50, 5, give_up_after, jitter=0)
        self.circuit = Circuit(self.breaker)
        self.now = 0.0
        self.state = CLOSED
        self.openings = 0
        self.due = math.inf
        self.failures: list[float] = []

    def delay(self) -> float:
        return min(8 * math.pow(2, self.openings - 1), 50)

    @rule(seconds=st.integers(0, 25))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def fail(self) -> None:
        opens = self.circuit.failed(self.now)

        if self.state is CLOSED:
            self.failures.append(self.now)
            recent = [one for one in self.failures if self.now - one < self.breaker.within]
            assert opens == (len(recent) >= self.breaker.failures)
        else:
            assert opens == (self.state is HALF_OPEN)
        if opens:
            self.state = OPEN
            self.openings += 1
            last = self.breaker.give_up_after
            over = last is not None and self.openings > last
            self.due = math.inf if over else self.now + self.delay()

    @rule()
    def trip(self) -> None:
        self.circuit.trip(self.now)
        if self.state is OPEN and self.due == math.inf:
            return  # it has given up
        self.state = OPEN
        self.openings = max(1, self.openings)
        self.due = self.now + self.delay()

    @precondition(lambda self: self.state is OPEN)
    @rule()
    def probe(self) -> None:
        self.circuit.probe()
        self.state = HALF_OPEN

    @precondition(lambda self: self.state is not OPEN)
    @rule()
    def probe_too_many(self) -> None:
        with pytest.raises(RuntimeError):
            self.circuit.probe()

    @rule()
    def close(self) -> None:
        self.circuit.close()
        self.state, self.openings, self.due, self.failures = CLOSED, 0, math.inf, []

    @invariant()
    def agrees(self) -> None:
        assert state_of(self.circuit) is self.state
        assert self.circuit.opened == self.openings
        assert (self.openings == 0) == (self.state is CLOSED)
        assert self.circuit.given_up == (self.state is OPEN and self.due == math.inf)
        if self.state is OPEN:
            assert self.circuit.due == self.due


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=100, stateful_step_count=60)
