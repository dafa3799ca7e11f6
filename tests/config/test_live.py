"""Options that change while their service runs."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from trio_services.config import Live


async def test_change_is_awaited() -> None:
    live = Live("a")
    heard: list[str] = []

    async def listen() -> None:
        known = live.value
        while known != "d":
            known = await live.changed(known)
            heard.append(known)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        live.replace("b")
        live.replace("c")  # before anybody could look
        await wait_all_tasks_blocked()
        live.replace("d")

    assert heard == ["c", "d"]
    assert live.value == "d"


async def test_change_that_came_before_is_not_missed() -> None:
    live = Live("a")
    known = live.value
    live.replace("b")

    assert await live.changed(known) == "b"


async def test_wait_for_a_change_is_cancelled_at_once(autojump_clock: object) -> None:
    with trio.move_on_after(1) as scope:
        await Live("a").changed("a")

    assert scope.cancelled_caught
