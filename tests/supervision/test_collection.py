from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_services import Child, Supervisor, open_supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

MANY = Supervisor("app", [Child(trio.sleep_forever, name=f"s{n}") for n in range(600)])


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """The generations that Python's collector looks at."""
    looked_at: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            looked_at.append(info["generation"])

    gc.callbacks.append(note)
    yield looked_at
    gc.callbacks.remove(note)


async def test_collector_rests_while_many_children_start(collections: list[int]) -> None:
    gc.collect()
    collections.clear()

    async with open_supervisor(MANY):
        await trio.testing.wait_all_tasks_blocked()
        assert len(collections) < 6  # without the rest it is about 18
        assert gc.isenabled()


async def test_collector_works_again_after_the_end() -> None:
    async with open_supervisor(MANY):
        pass

    assert gc.isenabled()


async def test_collector_that_the_program_switched_off_stays_off() -> None:
    gc.disable()
    try:
        async with open_supervisor(MANY):
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


async def test_what_the_program_has_frozen_stays_frozen() -> None:
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        async with open_supervisor(MANY):
            assert gc.get_freeze_count() == pytest.approx(frozen, rel=0.01)
    finally:
        gc.unfreeze()
