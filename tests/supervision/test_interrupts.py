"""Ctrl-C in a program that embeds a tree, wherever it comes in."""

from __future__ import annotations

import signal
from collections.abc import Awaitable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from trio_services import Child, Supervisor
from trio_services.lifecycle import events

from .harness import AT_ONCE, Story, fails_after, finishing, idle, lives_of, ready_after

KINDS = (
    events.ServiceStarting,
    events.ServiceReady,
    events.ServiceFailed,
    events.ServiceRestarting,
    events.ServiceReturned,
    events.ServiceStopping,
    events.ServiceStopped,
    events.SupervisorStopping,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["app", "app/group"])
def test_interrupt_while_the_supervisor_decides_stops_the_tree_in_order(
    kind: type[events.Event], path: str
) -> None:
    story = Story()
    interrupted: list[events.Event] = []
    tree = Supervisor(
        "app",
        [
            finishing(2, story, "work"),
            Supervisor(
                "group",
                [
                    Child(fails_after(1), name="job", backoff=AT_ONCE),
                    Child(partial(trio.sleep, 1), name="done"),
                    idle,
                ],
            ),
        ],
    )

    def interrupt(event: events.Event) -> None:
        if isinstance(event, kind) and event.service.startswith(path) and not interrupted:
            interrupted.append(event)
            signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        with story.bus.listening(interrupt):
            async with story.open(tree):
                await trio.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))

    assert story.tree is not None
    assert all(life.state.ended for life in lives_of(story.tree.life))
    assert interrupted


def test_interrupt_in_a_service_stops_the_tree_in_order() -> None:
    story = Story()

    async def busy() -> None:
        await trio.sleep(1)
        signal.raise_signal(signal.SIGINT)
        story.note("went on")  # pragma: no cover

    async def main() -> None:
        async with story.open(Supervisor("app", [busy, finishing(2, story, "work")])):
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))

    assert story.noted == ["work finished", "work left"]


def test_interrupt_in_what_makes_a_service_stops_the_tree_in_order() -> None:
    story = Story()

    def make() -> Awaitable[None]:
        signal.raise_signal(signal.SIGINT)
        story.note("went on")  # pragma: no cover
        return idle()  # pragma: no cover

    async def main() -> None:
        tree = Supervisor("app", [ready_after(1, "db", story), Child(make, after=["db"])])
        async with story.open(tree):
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))

    assert story.noted == ["db entered", "db left"]
