"""What a test is told that has found something."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ServicesError


class InjectedFault(ServicesError):
    """A service fails because a test wants it to; `service` is its path."""

    def __init__(self, service: str) -> None:
        super().__init__(service)
        self.service: str = service

    def __str__(self) -> str:
        return f"{self.service} was made to fail"


class LeftBehind(ServicesError, AssertionError):
    """An application has ended, and something of it is still there; `things` names each."""

    def __init__(self, name: str, things: Sequence[str]) -> None:
        super().__init__(name, things)
        self.name: str = name
        self.things: tuple[str, ...] = tuple(things)

    def __str__(self) -> str:
        lines = "".join(f"\n  {thing}" for thing in self.things)
        return f"{self.name} has ended, and has left behind:{lines}"


class NotSeen(ServicesError, AssertionError):
    """An event that was waited for did not come within its time."""


class Deadlock(ServicesError, AssertionError):
    """Nothing can happen any more: every task waits, and none of them for a time.

    `tasks` says what each of them waits on.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__(tasks)
        self.tasks: tuple[str, ...] = tuple(tasks)

    def __str__(self) -> str:
        lines = "".join(f"\n  {task}" for task in self.tasks)
        return f"every task waits for another one, and none for a time:{lines}"


class RealTimeUsed(ServicesError, AssertionError):
    """A task waits for the outside world, which knows nothing of virtual time."""

    def __init__(self, what: str, task: str) -> None:
        super().__init__(what, task)
        self.what: str = what
        self.task: str = task

    def __str__(self) -> str:
        return (
            f"{self.task}: {self.what} takes real time, and time-outs would expire before it is "
            "done; give the service a test double, or run this test without a virtual clock"
        )
