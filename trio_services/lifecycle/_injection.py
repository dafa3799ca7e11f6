"""What services and jobs ask for by the types of their parameters, and who gives it.

Rooms below `trio_services.di` know it by these protocols only. `Container` is an `Injector`; when
an application is opened it becomes a `HostInjector`, and each run of a service gets a
`ServiceInjector` from that.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

T = TypeVar("T")

JobCall = tuple[Callable[..., object], int]
"""What is called for each job, and how many positional arguments it is called with."""


class ServiceInjector(Protocol):
    """For one run of a service; its methods are called in the task of that."""

    async def fill(self, function: Callable[..., T], /) -> Callable[..., T]:
        """A function with the arguments that it asks for; itself if it asks for nothing.

        Raises:
            PlanError: something that it asks for cannot be provided.
        """
        ...

    async def bind(
        self, function: Callable[..., Awaitable[object]], given: int, /
    ) -> Callable[..., Awaitable[object]]:
        """What to call for each job, from any task, instead of a function; see `Lifetime.bind`."""
        ...


class HostInjector(Protocol):
    """For an application that is open."""

    def check(self, *services: Callable[..., object], jobs: Iterable[JobCall] = ()) -> None:
        """See that what these ask for can be provided.

        Raises:
            PlanError: with a line for each problem.
        """
        ...

    def open_service(self) -> AbstractAsyncContextManager[ServiceInjector]:
        """The scope of one run of a service; to be opened and closed in the task of that."""
        ...


class Injector(Protocol):
    """For an application that is not open yet."""

    @property
    def dispose_within(self) -> float:
        """Seconds that closing may take."""
        ...

    def check(self, *services: Callable[..., object], jobs: Iterable[JobCall] = ()) -> None:
        """As that of `HostInjector`."""
        ...

    def open(self) -> AbstractAsyncContextManager[HostInjector]:
        """The scope of the application."""
        ...
