from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
import trio
from hypothesis import given, strategies as st

from trio_services.lifecycle import TRANSITIONS, Bus, Lifetime, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio.testing import MockClock

ENDED = {State.STOPPED, State.DONE, State.FAILED}


def reachable(start: State) -> set[State]:
    found = {start}
    ahead = [start]
    while ahead:
        new = TRANSITIONS[ahead.pop()] - found
        found |= new
        ahead += new
    return found


def test_table_speaks_of_every_state() -> None:
    assert set(TRANSITIONS) == set(State)


def test_every_state_is_reached_from_waiting() -> None:
    assert reachable(State.WAITING) == set(State)


def test_after_an_end_a_service_can_only_wait_for_another_start() -> None:
    assert {state for state in State if state.ended} == ENDED
    assert {state for state in State if TRANSITIONS[state] == {State.WAITING}} == ENDED


@pytest.mark.parametrize("state", State)
def test_from_every_state_there_is_a_way_to_an_end(state: State) -> None:
    assert reachable(state) & ENDED


def test_stop_leads_to_an_end() -> None:
    assert TRANSITIONS[State.STOPPING] == {State.STOPPED, State.FAILED}


def test_service_that_was_never_entered_is_stopped_without_stopping() -> None:
    for state in (State.WAITING, State.BACKING_OFF):
        assert State.STOPPED in TRANSITIONS[state]
        assert State.STOPPING not in TRANSITIONS[state]


def test_only_a_ready_service_is_running_and_only_a_running_one_is_done() -> None:
    assert {state for state in State if State.RUNNING in TRANSITIONS[state]} == {State.STARTING}
    assert {state for state in State if State.DONE in TRANSITIONS[state]} == {State.RUNNING}


def test_service_is_entered_only_from_waiting() -> None:
    assert {state for state in State if State.STARTING in TRANSITIONS[state]} == {State.WAITING}


def test_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        cast("dict[State, object]", TRANSITIONS)[State.DONE] = frozenset(State)


async def walk(states: Iterable[State]) -> None:
    """Try to enter each state in turn; hold what happens against the table."""
    life = Lifetime("app/service", Bus())
    assert life.state is State.WAITING
    for state in states:
        before, since = life.state, life.since
        await trio.sleep(1)
        if state in TRANSITIONS[before]:
            life.enter(state)
            assert (life.state, life.since) == (state, trio.current_time())
        else:
            with pytest.raises(RuntimeError, match=f"app/service .* from {before} to {state}"):
                life.enter(state)
            assert (life.state, life.since) == (before, since)


async def test_every_transition_that_is_not_in_the_table_is_refused(
    autojump_clock: MockClock,
) -> None:
    ways = {
        State.WAITING: [],
        State.STARTING: [State.STARTING],
        State.RUNNING: [State.STARTING, State.RUNNING],
        State.BACKING_OFF: [State.STARTING, State.BACKING_OFF],
        State.STOPPING: [State.STARTING, State.STOPPING],
        State.STOPPED: [State.STOPPED],
        State.DONE: [State.STARTING, State.RUNNING, State.DONE],
        State.FAILED: [State.STARTING, State.FAILED],
    }
    for start in State:
        for end in State:
            await walk([*ways[start], end])


@given(st.lists(st.sampled_from(State), max_size=12))
async def test_lifetime_follows_the_table_and_nothing_else(states: list[State]) -> None:
    life = Lifetime("app/service", Bus())
    for state in states:
        await trio.lowlevel.checkpoint()
        before = life.state
        if state in TRANSITIONS[before]:
            life.enter(state)
            assert life.state is state
        else:
            with pytest.raises(RuntimeError):
                life.enter(state)
            assert life.state is before
    assert life.state in reachable(State.WAITING)
