"""What a service is: a `Service`, a `@service` value, or any async callable."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from functools import partial, update_wrapper
from types import CoroutineType
from typing import ParamSpec, cast

import attrs
import trio

from .lifecycle import Health, HostInjector, JobCall, Lifetime, surrounding_service

P = ParamSpec("P")


class Service(ABC):
    """Something that runs in the background; its docstring says what it is responsible for.

    Resources are opened with `async with` inside `run`, and so are closed by it.
    """

    __slots__ = ()

    @abstractmethod
    async def run(self) -> None:
        """Do the work until there is no more of it, or until cancelled.

        A service that has to get ready first takes ``task_status`` and calls its ``started()``::

            async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
                async with connect() as self.connection:
                    task_status.started()
                    ...

        Raises: whatever it likes; its supervisor decides what follows.

        Cancellation: at a stop, at once, but for `with graceful():` regions.
        """

    async def check(self) -> Health:
        """How well it is, asked now and then while it is ready; a service may say more.

        Raises: whatever it likes; that is unhealthy.

        Cancellation: when it takes longer than the one who asks wants to wait.
        """
        await trio.lowlevel.checkpoint()
        return Health.healthy()

    def enlist(  # noqa: B027 -- most services need not know
        self, lifetime: Lifetime, name: str
    ) -> None:
        """A supervisor has taken it on, and may never come to start it.

        Args:
            lifetime: its own, or that of a supervisor above it; see `Lifetime.at_end`.
            name: the path that it will have.
        """

    def job_calls(self) -> Iterable[JobCall]:
        """The functions that it will `Lifetime.bind`, so that they are checked before a start."""
        return ()


AnyService = Service | Callable[..., Service] | Callable[..., Awaitable[object]]
"""A service, what makes a fresh one for each start, or an async callable as Trio starts them."""


@attrs.frozen
class ServiceCall(Service):
    """A call of a `@service` function that is still to be made, at each start anew."""

    function: Callable[..., Awaitable[object]]
    args: tuple[object, ...]
    kwargs: dict[str, object]

    @property
    def name(self) -> str:
        """The function's name."""
        return name_of(self.function)

    @property
    def call(self) -> Callable[..., Awaitable[object]]:
        """The call to make."""
        return partial(self.function, *self.args, **self.kwargs)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Make the call."""
        await start(self.call, task_status)


def service(function: Callable[P, Awaitable[object]]) -> Callable[P, ServiceCall]:
    """Make an async function into a service: calling it makes a value and runs nothing.

    ::

        @service
        async def hello(name: str) -> None:
            async for tick in every(5.0):
                print(f"hello {name} {tick.number}")

        run(hello("world"))
    """

    def call(*args: P.args, **kwargs: P.kwargs) -> ServiceCall:
        return ServiceCall(function, args, kwargs)

    update_wrapper(call, function)
    # The call takes no `task_status`; the run that it describes may.
    signature = inspect.signature(function)
    kept = [one for one in signature.parameters.values() if one.name != "task_status"]
    vars(call)["__signature__"] = signature.replace(parameters=kept)
    return call


@trio.lowlevel.disable_ki_protection  # what a factory does may take long
def start(service: AnyService, task_status: trio.TaskStatus[None]) -> Awaitable[object]:
    """What to await for one run of a service, from a fresh instance where there is a factory.

    A service that does not take `task_status` is ready as soon as it is entered. One that says by
    itself how well it is, is asked as long as it runs; see `Lifetime.check`.
    """
    if isinstance(service, Service):
        run = cast("Callable[..., object]", service.run)
        if type(service).check is not Service.check and (life := surrounding_service()):
            life.check = service.check
    else:
        run = service
    takes_status = takes_task_status(run)
    made = run(task_status=task_status) if takes_status else run()
    is_coroutine = isinstance(made, CoroutineType)  # as nearly always; the others are seen slowly
    if not is_coroutine and isinstance(made, Service):
        return start(made, task_status)
    if not is_coroutine and not isinstance(made, Awaitable):
        raise TypeError(
            f"{name_of(service)} returned {made!r}: a service is an async callable, a Service, "
            "or what returns a Service"
        )
    if not takes_status:
        task_status.started()
    return cast("Awaitable[object]", made)


async def run_injected(
    service: AnyService, life: Lifetime, injector: HostInjector, task_status: trio.TaskStatus[None]
) -> None:
    """One run of a service, in a scope of which it gets what it and its jobs ask for by type."""
    async with injector.open_service() as scope:
        life.injected = scope
        try:
            call = factory_of(service)
            filled = service if call is None else cast("AnyService", await scope.fill(call))
            await start(filled, task_status)
        finally:
            life.injected = None


def factory_of(service: AnyService) -> Callable[..., object] | None:
    """What is called at each start of a service, if it is not an instance that is there."""
    if isinstance(service, ServiceCall):
        return service.call
    return None if isinstance(service, Service) else service


def takes_task_status(function: Callable[..., object]) -> bool:
    """Whether a callable has a parameter `task_status`, as Trio's `nursery.start` asks for."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is not None and not hasattr(function, "__wrapped__"):
        # A tenth of the price of a signature, and all that thousands of children need.
        return "task_status" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    try:
        return "task_status" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some callables written in C have no signature
        return False


def name_of(service: object) -> str:
    """The name that a service goes by when it is given none."""
    if isinstance(service, partial):
        return name_of(service.func)
    if isinstance(service, type):
        return service.__name__
    name = getattr(service, "name", None) or getattr(service, "__name__", None)
    return name if isinstance(name, str) else type(service).__name__
