"""A service that behaves as a test needs it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import attrs
import trio
from attrs import validators

from ..lifecycle import Lifetime, current_service, graceful
from ..services import Service
from ._errors import InjectedFault

Act = Literal["work", "return", "fail", "hang", "never_ready", "slow_stop", "swallow_cancel"]

_PROGRESS_EVERY = 1.0  # seconds


def _acts(given: Act | Iterable[Act]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


@attrs.frozen
class Scripted(Service):
    """Play one act at each of its starts, and the last one from then on.

    ::

        Child(Scripted(["fail", "fail", "work"], after=2.0), name="sync")

    ``"work"``: run on, and make progress each second. ``"return"``. ``"fail"`` with an
    `InjectedFault`. ``"hang"``: run on without any progress. ``"never_ready"``. ``"slow_stop"``:
    at a stop, take some time for what is in hand. ``"swallow_cancel"``: ignore a cancellation for
    some time.

    Args:
        acts: one of them, or several.
        after: seconds for which it works before it plays its act; ≥ 0.
        takes: seconds that it takes to stop, or ignores its cancellation for; ≥ 0.
    """

    acts: tuple[str, ...] = attrs.field(
        converter=_acts,
        validator=[
            validators.min_len(1),
            validators.deep_iterable(validators.in_(get_args(Act))),
        ],
    )
    after: float = attrs.field(default=0.0, kw_only=True, validator=validators.ge(0))
    takes: float = attrs.field(default=5.0, kw_only=True, validator=validators.ge(0))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Play the act of this start.

        Raises:
            InjectedFault: as scripted.

        Cancellation: at once, but in the acts that are about it.
        """
        service = current_service()
        act = self.acts[min(service.attempt, len(self.acts)) - 1]
        if act == "never_ready":
            await trio.sleep_forever()
        task_status.started()
        with trio.move_on_after(self.after):
            await _work(service)
        match act:
            case "fail":
                raise InjectedFault(service.name)
            case "work":
                await _work(service)
            case "hang":
                await trio.sleep_forever()
            case "slow_stop":
                with graceful():
                    await service.wait_stop_requested()
                    await trio.sleep(self.takes)
            case "swallow_cancel":
                await swallow_cancellation(self.takes)
            case _:
                return


async def swallow_cancellation(takes: float) -> None:
    """Wait to be cancelled, and go on for some seconds all the same."""
    try:
        await trio.sleep_forever()
    except trio.Cancelled:  # noqa: ASYNC103 -- the very fault
        with trio.move_on_after(takes, shield=True):
            await trio.sleep_forever()


async def _work(service: Lifetime) -> None:
    while True:
        service.progress()
        await trio.sleep(_PROGRESS_EVERY)
